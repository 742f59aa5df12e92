"""A new data directory out of what still verifies of a damaged one; the original is only read.

It gets a store id of its own, so that no segment of the damaged one can ever pass for one of its, and the session
key of the original, so that clients resume and what they send again is known. Batches are numbered anew under one
epoch above every one that can have been in use. It is built under a name of its own and renamed when it is synced
and was checked: a directory of the name that was asked for is whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from minibrokerd.log import format as layout
from minibrokerd.log.allocation import Allocation
from minibrokerd.log.directory import KEY_BYTES, DataDirectory, State
from minibrokerd.log.failures import DamagedLog, NotWritable
from minibrokerd.log.fileops import FileOps, sync_entries
from minibrokerd.log.format import Kind
from minibrokerd.log.seam import BATCH_HEADER_BYTES, Batch
from minibrokerd.log.tail import Tail
from minibrokerd.rescue.checking import Checked, Survey, check, read, survey_of
from minibrokerd.rescue.keeping import Keeper, QueueRisk
from minibrokerd.rescue.salvaging_retained import LogSalvaged, salvage_retained

BUILDING: Final = ".salvaging"  # the end of the name while it is built
FALLBACK_SEGMENT_BYTES: Final = 64 * 1024 * 1024  # when no header of a segment is left to say


@dataclass(slots=True)
class Salvaged:
    """What a salvage kept: batches, records, retained logs; the risks; `source` is the check of the original."""

    source: Checked
    kept_batches: int
    kept_records: int
    dropped_records: int
    epoch: int
    risks: list[QueueRisk]
    retained: list[LogSalvaged]


class _SyncedAtTheEnd(FileOps):
    """Leaves the syncs to the end: nobody is told of the new directory before."""

    def write_synced(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write only."""
        return self.write(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        """Do nothing: `_sync` does it for all files."""

    def sync_directory(self, descriptor: int) -> None:
        """Do nothing, as `sync`."""


def refuse_target(source: Path, out: Path) -> None:
    """Make sure that a new directory can stand at `out`.

    Raises:
        NotWritable: it is there and not empty, or inside the damaged directory, or half of one is left.
    """
    target, advice = str(out), "choose a new name with --out"
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise NotWritable(target, "salvage into", "it is inside the damaged directory", advice)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise NotWritable(target, "salvage into", "it is not empty", advice)
    building = _building(out)
    if building.exists():
        raise NotWritable(
            str(building), "make", "an earlier salvage was cut short there", "remove that directory"
        )


def salvage(source: Path, out: Path, ops: FileOps) -> Salvaged:
    """Read `source`, write what is kept of it to `out`, check that, and give it its name.

    Raises:
        NotWritable, NewerFormat, UnknownRecord: nothing is at `out`.
        DamagedLog: neither, as what was written is not whole: a bug, or a bad disk.
    """
    refuse_target(source, out)
    directory = DataDirectory(source, ops)
    keeper = Keeper()
    checked = check(directory, ops, keeper.keep)
    building = _building(out)
    try:
        building.mkdir(0o700, parents=True)
        salvaged = _build(directory, building, checked, ops, keeper.ended)
        _sync(building, ops)
        _require_whole(building)
        building.rename(out)
        sync_entries(ops, out.absolute().parent)
    except BaseException as exc:
        shutil.rmtree(building, ignore_errors=True)
        if not isinstance(exc, OSError):
            raise
        raise NotWritable(str(out), "write", str(exc), "make space or choose another disk") from exc
    return salvaged


def _building(out: Path) -> Path:
    return out.with_name(out.name + BUILDING)


def _build(
    source: DataDirectory, building: Path, checked: Checked, ops: FileOps, ended: Collection[int]
) -> Salvaged:
    _keep_key(source, building)
    survey = survey_of(source, ops)
    target = DataDirectory(building, ops)
    target.open()
    lazy = _SyncedAtTheEnd()
    size_bytes = survey.segment_bytes or FALLBACK_SEGMENT_BYTES
    allocation = Allocation(target, lazy, size_bytes)
    tail = Tail(target, lazy, allocation, secrets.token_bytes(16))
    try:
        tail.epoch = _epoch_above(checked.survey)
        tail.begin_segment(0, 0)
        logs = salvage_retained(str(source.path), str(building), lazy, ended)
        keeper, records = Keeper({each.number: each.stop for each in logs}), 0
        for _, piece in read(survey, source, ops):
            records += _append(tail, keeper.keep(piece))
        added = keeper.added(checked.survey.lost_bytes, end_lost=checked.survey.end_lost)
        _append(tail, added)
        tail.append_own(Kind.FOOTER, keeper.now_ms, keeper.unix_ms)
        assert tail.segment is not None
        target.write_state(State(True, tail.segment.name.number))
        kept = keeper.batch - (added is not None)
        dropped, risks = keeper.dropped_records, keeper.risks()
        return Salvaged(checked, kept, records, dropped, tail.epoch, risks, logs)
    finally:
        tail.close()
        allocation.close()
        target.close()


def _append(tail: Tail, batch: Batch | None) -> int:
    if batch is None:
        return 0
    body = layout.encode_body(batch.records)
    tail.append(batch.number, body, batch.now_ms, batch.unix_ms)
    return len(batch.records)


def _epoch_above(survey: Survey) -> int:
    """Return an epoch above all that can have been in use: each start left a batch of its own at least."""
    return survey.epoch + 1 + survey.end_bytes // BATCH_HEADER_BYTES


def _keep_key(source: DataDirectory, building: Path) -> None:
    path = Path(source.at("key"))
    if not path.exists() or path.stat().st_size != KEY_BYTES:
        return  # a new one is made: sessions start anew
    key = building / "key"
    key.touch(0o600)
    key.write_bytes(path.read_bytes())


def _sync(building: Path, ops: FileOps) -> None:
    for path in building.rglob("*"):
        descriptor = ops.open(str(path), os.O_RDONLY)
        try:
            ops.sync(descriptor)
        finally:
            ops.close(descriptor)
    sync_entries(ops, building)


def _require_whole(building: Path) -> None:
    keeper = Keeper()
    checked = check(DataDirectory(building, FileOps()), FileOps(), keeper.keep)
    keeper.risks()  # the end of a replay, as a start does it: it refuses what has no name
    if not checked.whole or checked.torn:
        raise checked.refusal or DamagedLog(
            str(building), 0, 0, 0, "what was salvaged is not whole"
        )
