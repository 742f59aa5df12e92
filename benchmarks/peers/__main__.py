"""`make bench-peers`: the same work through minibroker and through what people use instead of it.

    make bench-peers ARGS="--quick"
    make bench-peers ARGS="--only redis nats-always --work publish-one consume-32"

Writes peers.json (a list of rows), peers-machine.json, peers.md and charts into benchmarks/results, those of a
quick run into benchmarks/out/peers. What was measured is written after every row.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

from benchmarks.bench import machine
from benchmarks.gauges import LoopGauge, SyncGauge, record_bytes
from benchmarks.peers import sides, works
from benchmarks.peers.charts import draw
from benchmarks.peers.match import Match, Plan
from benchmarks.peers.servers import SideFailed
from benchmarks.peers.tables import markdown

FOLDER = Path(__file__).resolve().parents[1]
FULL = Plan(pairs=3, seconds=0.8, backlog=1_000_000, fill_seconds=45.0)
QUICK = Plan(pairs=1, seconds=0.1, backlog=20_000, fill_seconds=3.0)


class Report:
    """The files of the result."""

    def __init__(self, folder: Path, header: dict[str, Any], skipped: list[str]) -> None:
        self._folder, self._header, self.skipped = folder, header, skipped
        self.rows: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row, and write all files but the charts."""
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        """Write what there is."""
        (self._folder / "peers.json").write_text(json.dumps(self.rows, indent=1) + "\n", "utf-8")
        told = json.dumps({**self._header, "skipped": self.skipped}, indent=1)
        (self._folder / "peers-machine.json").write_text(told + "\n", "utf-8")
        page = markdown(self._header, self.rows, self.skipped)
        (self._folder / "peers.md").write_text(page, "utf-8")


def header(folder: Path) -> dict[str, Any]:
    """Return what the figures were measured on, with both gauges."""
    sync, loop = SyncGauge(folder, record_bytes(1, works.BODY_BYTES)), LoopGauge()
    sync.measure(500)
    loop.measure(0.5)
    sync.close()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **machine("uvloop"),
        "fdatasync_p50_us": round(sync.p50_us, 1),
        "loop_per_second": round(loop.per_second),
    }


def run(
    folder: Path,
    plan: Plan,
    report: Report,
    wanted: Sequence[sides.Side],
    wanted_works: Sequence[works.Work],
) -> None:
    """Measure every side that is there; what fails is told and left out."""
    missing = {side.peer.name: side.peer.missing() for side in wanted}
    for name, how_to_get_it in missing.items():
        if how_to_get_it:
            say(report, f"{name}: skipped: {how_to_get_it}")
    for side in wanted:
        if missing[side.peer.name]:
            continue
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, folder / side.name, ignore_errors=True)
            match = Match(stack, side, folder / side.name, plan)
            try:
                measure(match, side, report, wanted_works)
            except SideFailed as error:
                say(report, f"{side.name}: given up: {error}")


def measure(match: Match, side: sides.Side, report: Report, wanted: Sequence[works.Work]) -> None:
    """Measure the works against one side."""
    for work in wanted:
        if not sides.does(side, work):
            continue
        started = monotonic()
        try:
            row = match.row(work)
        except SideFailed as error:
            say(report, f"{side.name}, {work.name}: failed: {error}")
            match.recover()
            continue
        report.add(row)
        print(
            f"{side.name:18} {work.name:18} {row['ours']:>10,.4g} {row['theirs']:>10,.4g} {row['unit']:13} "
            f"{row['ratio_median']:>7,.3g} times better ({monotonic() - started:.1f} s)",
            flush=True,
        )


def say(report: Report, line: str) -> None:
    """Print a line that also belongs into the report."""
    print(line, flush=True)
    report.skipped.append(line)
    report.write()


def stopped(number: int, frame: FrameType | None) -> None:
    """Leave as on Ctrl-C, so that every server is ended."""
    raise SystemExit(128 + number)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="try everything once, with few messages"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="peers or sides")
    parser.add_argument("--work", nargs="+", default=[], metavar="NAME", help="works")
    parser.add_argument("--pairs", type=int, help=f"pairs of each work (default {FULL.pairs})")
    parser.add_argument("--seconds", type=float, help=f"of a repetition (default {FULL.seconds})")
    parser.add_argument("--out", type=Path, help="folder of the result")
    options = parser.parse_args()
    try:
        wanted, wanted_works = sides.chosen(options.only), works.chosen(options.work)
    except ValueError as error:
        parser.error(str(error))
    base = QUICK if options.quick else FULL
    plan = Plan(
        options.pairs or base.pairs,
        options.seconds or base.seconds,
        base.backlog,
        base.fill_seconds,
    )
    signal.signal(signal.SIGTERM, stopped)
    out = options.out or (FOLDER / "out" / "peers" if options.quick else FOLDER / "results")
    # All data lies here: one file system for every side, and for the gauge.
    folder = FOLDER / "out" / f"peers-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        report = Report(out, header(folder), [])
        run(folder, plan, report, wanted, wanted_works)
        draw(report.rows, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"written: {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
