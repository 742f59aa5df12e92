"""`make bench-workers`: a job that does nothing, through `minibroker worker` and what people use instead.

    make bench-workers ARGS="--rounds 1 --share 0.2"
    make bench-workers ARGS="--only minibroker celery-prefetch"

Every round measures each setting once, one after the other, and `consume-1000` of `make bench` beside them. Ratios
are taken within a round. Writes workers.md and workers.json into benchmarks/results, or into `--out`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import bench
from benchmarks.gauges import LoopGauge, SyncGauge, record_bytes
from benchmarks.peers.__main__ import header, stopped
from benchmarks.peers.servers import SideFailed
from benchmarks.rows import BODY_BYTES, ROWS
from benchmarks.workers.page import markdown
from benchmarks.workers.running import repetition
from benchmarks.workers.settings import Setting, chosen

FOLDER = Path(__file__).resolve().parents[1]
CONSUME = next(row for row in ROWS if row.name == "consume-1000")
SYNCS_A_ROUND, LOOP_A_ROUND_S = 200, 0.2


class Rounds:
    """The figures of all rounds, by the name of a setting; a setting that fails is left out from then on."""

    def __init__(self, wanted: list[Setting], folder: Path, share: float) -> None:
        self._wanted, self._folder, self._share = wanted, folder, share
        self.rates: dict[str, list[float]] = {each.name: [] for each in wanted}
        self.cpu_us: dict[str, list[float]] = {each.name: [] for each in wanted}
        self.consume: list[float] = []
        self.failed: dict[str, str] = {}

    def measure(self) -> None:
        """Measure one round."""
        self.consume.append(self._consume())
        print(f"{CONSUME.name:22} {self.consume[-1]:>12,.0f} messages/s", flush=True)
        for setting in self._wanted:
            if setting.name in self.failed:
                continue
            try:
                timed = repetition(setting, self._folder / setting.name, self._share)
            except SideFailed as error:
                self.failed[setting.name] = str(error).splitlines()[0]
                print(f"{setting.name}: failed: {error}", flush=True)
                continue
            self.rates[setting.name].append(timed.rate)
            self.cpu_us[setting.name].append(timed.cpu_us)
            print(
                f"{setting.name:22} {timed.rate:>12,.0f} jobs/s ({timed.jobs:,} in {timed.seconds:.2f} s), "
                f"{timed.cpu_us:,.1f} us of CPU each",
                flush=True,
            )

    def _consume(self) -> float:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self._folder / "consume", ignore_errors=True)
            url = bench.start_broker(stack, self._folder / "consume", "uvloop")
            measured = bench.repeat(bench.start_client(stack, url, CONSUME, "uvloop"))
        return float(measured["messages"] / measured["seconds"])


def report(rounds: Rounds, wanted: list[Setting], head: dict[str, Any]) -> dict[str, Any]:
    """Return everything that was measured, for programs and for the page."""
    rows = [
        {
            "name": each.name,
            "framework": each.framework,
            "how": each.how,
            "source": each.source,
            "jobs": each.jobs,
            "rates": [round(rate, 1) for rate in rounds.rates[each.name]],
            "cpu_us": [round(each_us, 2) for each_us in rounds.cpu_us[each.name]],
        }
        for each in wanted
        if each.name not in rounds.failed
    ]
    names = {name for each in wanted for name in each.distributions}
    versions = {name: importlib.metadata.version(name) for name in sorted(names)}
    return {
        **head,
        "versions": versions,
        "consume": [round(rate) for rate in rounds.consume],
        "rows": rows,
        "failed": rounds.failed,
    }


def write(folder: Path, made: dict[str, Any]) -> None:
    """Write both files, after each round: whoever ends the run has those before."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "workers.json").write_text(json.dumps(made, indent=1) + "\n", "utf-8")
    (folder / "workers.md").write_text(markdown(made), "utf-8")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="settings, frameworks"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the jobs of a repetition")
    parser.add_argument("--out", type=Path, default=FOLDER / "results", help="folder of the result")
    options = parser.parse_args()
    try:
        wanted = chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, stopped)
    folder = FOLDER / "out" / f"workers-{os.getpid()}"
    folder.mkdir(parents=True)
    sync, loop = SyncGauge(folder, record_bytes(1, BODY_BYTES)), LoopGauge()
    try:
        head, rounds = header(folder), Rounds(wanted, folder, options.share)
        for _ in range(options.rounds):
            rounds.measure()
            sync.measure(SYNCS_A_ROUND)
            loop.measure(LOOP_A_ROUND_S)
            head |= {
                "fdatasync_p50_us": round(sync.p50_us, 1),
                "loop_per_second": round(loop.per_second),
            }
            write(options.out, report(rounds, wanted, head))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"written: {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
