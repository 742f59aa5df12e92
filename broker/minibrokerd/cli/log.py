"""`minibroker log`: what stands in the log on disk. `salvage` and `move` write elsewhere, `restore` a little."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from minibroker.contract.wire import RUN
from minibrokerd.bodies.tails import split_bins
from minibrokerd.cli.group import Group
from minibrokerd.cli.log_check import check_command
from minibrokerd.cli.log_move import move_command
from minibrokerd.cli.log_restore import restore_command
from minibrokerd.cli.log_salvage import salvage_command
from minibrokerd.cli.log_stats import stats_command
from minibrokerd.cli.offline import require_log, speaking
from minibrokerd.cli.options import data_dir_option, option
from minibrokerd.cli.printing import note, print_json, progress
from minibrokerd.core.model.records import (
    AckMeta,
    CopyMeta,
    CopyPartMeta,
    CopyRunMeta,
    CopySomeMeta,
    PublishMeta,
    decode,
)
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.recovery import Recovery
from minibrokerd.log.seam import Batch, Record
from minibrokerd.text.counts import count_text

WITH_MESSAGES: Final = (PublishMeta, CopyMeta, CopyRunMeta, CopyPartMeta, CopySomeMeta)


@click.group(cls=Group)
def log() -> None:
    """What stands in the log on disk."""


log.add_command(check_command)
log.add_command(move_command)
log.add_command(restore_command)
log.add_command(salvage_command)
log.add_command(stats_command)


@log.command()
@data_dir_option
@option("--bodies", is_flag=True, help="Print the bodies of published messages, too.")
@option("--count", type=click.IntRange(min=1), help="Stop after so many records.")
@click.option("--limit", "count", type=int, hidden=True, help="As --count: its former name.")
def dump(data_dir: Path, bodies: bool, count: int | None) -> None:
    """Print every record of the log, as one JSON object a line.

    Oldest first. The data directory is not locked and not changed. While a server runs on it, the newest records
    may be missing.
    """
    recovery = Recovery(require_log(data_dir), FileOps())
    left = count if count is not None else sys.maxsize
    with speaking(data_dir), progress("reading", None, prints=True, unit="records") as advance:
        for batch in recovery.batches():
            assert isinstance(batch, Batch), "no side index was asked for"
            lines = list(_lines(batch, bodies))[:left]
            for line in lines:
                print_json(line)
            advance(len(lines))
            left -= len(lines)
            if not left:
                return
    if recovery.report.torn_bytes:
        note(
            f"the last batch is torn: {count_text(recovery.report.torn_bytes, 'byte')} from byte "
            f"{recovery.report.torn_offset} of segment {recovery.report.torn_segment} on, never confirmed"
        )


def _lines(batch: Batch, bodies: bool) -> Iterator[dict[str, Any]]:
    for record in batch.records:
        yield {"batch": batch.number, "unix_ms": batch.unix_ms, **_described(record, bodies)}


def _described(record: Record, bodies: bool) -> dict[str, Any]:
    meta = decode(record)
    fields = _as_map(meta)
    # The time of the batch and that of the record differ; both are told.
    line: dict[str, Any] = {"type": type(meta).__name__.removesuffix("Meta").lower()}
    line |= {
        "record_unix_ms" if name == "unix_ms" else name: value for name, value in fields.items()
    }
    if isinstance(meta, AckMeta):
        line["runs"] = [list(run) for run in RUN.iter_unpack(record.tail)]
    if isinstance(meta, WITH_MESSAGES):
        line["messages"] = list(_messages(bytes(record.tail), bodies))
    return line


def _as_map(struct: msgspec.Struct) -> dict[str, Any]:
    return {name: _value(value) for name, value in msgspec.structs.asdict(struct).items()}


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(each) for each in value]
    return _as_map(value) if isinstance(value, msgspec.Struct) else value


def _messages(tail: bytes, bodies: bool) -> Iterator[dict[str, Any]]:
    _, lengths, blob = split_bins(memoryview(tail), 3)
    at = 0
    for index in range(0, len(lengths), 8):
        headers_size = int.from_bytes(lengths[index : index + 4], "little")
        body_size = int.from_bytes(lengths[index + 4 : index + 8], "little")
        message: dict[str, Any] = {"headers_bytes": headers_size, "body_bytes": body_size}
        if bodies:
            body = blob[at + headers_size : at + headers_size + body_size]
            message["body"] = bytes(body)
        at += headers_size + body_size
        yield message
