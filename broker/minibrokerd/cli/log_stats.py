"""`minibroker log stats`: how full the segments are, what lives in them, and what keeps them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from minibrokerd.cli.offline import require_log, speaking
from minibrokerd.cli.options import data_dir_option, json_option
from minibrokerd.cli.printing import fail, print_json, print_table, progress, say
from minibrokerd.engine.forwarder import SPARE_SEGMENTS
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.seam import RESERVE_SEGMENTS
from minibrokerd.rescue.checking import Checked, check
from minibrokerd.rescue.pieces import Piece
from minibrokerd.rescue.pinning import Pin, SegmentUse, Usage

HEADS = (
    "segment", "generation", "written", "batches", "records", "live messages", "live bytes", "pinned by",
)  # fmt: skip

MEANINGS: Final = {
    "log_bytes": "the segments",
    "live_bytes": "what lives in them, about",
    "bound_bytes": "the bound of the segments: twice what lives, and two segments",
    "reserve_bytes": "the reserve beside them, when it is whole",
}


@click.command("stats")
@data_dir_option
@json_option
def stats_command(data_dir: Path, as_json: bool) -> None:
    """Show what lives in each segment, and the oldest thing that keeps it from being freed.

    Read from the files alone, as a start reads them; nothing is locked and nothing is changed.
    """
    directory = require_log(data_dir)
    usage = Usage()
    with speaking(data_dir), progress("reading", None, prints=False, unit="batches") as advance:

        def each(piece: Piece) -> None:
            usage.take(piece)
            advance(1)

        checked = check(directory, FileOps(), each)
        if checked.refusal is not None:
            fail(str(checked.refusal), checked.refusal.exit_code)
        rows = usage.segments()
    totals = _totals(checked, usage.live_bytes(), len(rows))
    if as_json:
        for row in rows:
            print_json(asdict(row))
        print_json(totals)
        return
    now_unix_ms = time.time_ns() // 1_000_000
    print_table(HEADS, _cells(rows, now_unix_ms), "the log has no segment yet")
    say()
    print_table(
        ("bytes", "are"),
        [(value, MEANINGS[name]) for name, value in totals.items()],
        "",
        prose=True,
    )


def _totals(checked: Checked, live_bytes: int, count: int) -> dict[str, int]:
    size_bytes = checked.survey.segment_bytes
    return {
        "log_bytes": count * size_bytes,
        "live_bytes": live_bytes,
        "bound_bytes": 2 * live_bytes + SPARE_SEGMENTS * size_bytes,
        "reserve_bytes": RESERVE_SEGMENTS * size_bytes,
    }


def _cells(rows: list[SegmentUse], now_unix_ms: int) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        yield (
            row.number, row.generation, row.written_bytes, row.batches, row.records,
            row.live_messages, row.live_bytes, _pinned_by(row.pin, now_unix_ms),
        )  # fmt: skip


def _pinned_by(pin: Pin | None, now_unix_ms: int) -> str:
    if pin is None:
        return "nothing"
    age = f", {max(now_unix_ms - pin.unix_ms, 0) // 1_000} s old" if pin.unix_ms else ""
    return f"{pin.what} of {pin.of}{age}"
