"""A sync fails, the process ends before it could say so, the next start reads what was never on the disk, and the
power is cut: whatever was confirmed is there, and no start takes it for damage.

Every sync of a life that fills segments, frees one and closes the log fails once; after it the next start
dies in each of its own calls, too.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from zlib import crc32

import pytest
from sim_disk import FaultyDisk, PowerCut

from minibrokerd.log.allocation import Allocation
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.filelog import FileLog
from minibrokerd.log.seam import Batch, Record
from minibrokerd.log.writer import Job
from minibrokerd.rescue.restoring import AtOnce

SEGMENT_BYTES = 4096
NOW_MS, UNIX_MS = 1_000, 1_700_000_000_000


class Disk(FaultyDisk):
    """A disk whose `lost`-th sync from now on fails, and whose process hears nothing more after that."""

    def __init__(self) -> None:
        super().__init__(1, lambda what: None)
        self.lost = 0

    def _counted(self) -> bool:
        self.lost -= 1
        return self.lost == 0

    def _sync(self, descriptor: int, begin: int, end: int) -> None:
        if not self.dead and self._counted():
            self._lose(self._open[descriptor], reverted=False)
            self.dead = True
        super()._sync(descriptor, begin, end)

    def sync_directory(self, descriptor: int) -> None:
        """As a sync; the entries stay to be written, as in a journal."""
        if not self.dead and self._counted():
            self.dead = True
        super().sync_directory(descriptor)

    def cut_power(self, *, entries: bool) -> None:
        """Leave what was synced, and nothing else; with `entries` those of the directory, too."""
        self.let_go()
        self.dead, self.dies_in, self.lost = False, 0, 0
        if not entries:
            self.entries = dict(self.durable_entries)
        self.durable_entries, self.pending = dict(self.entries), []
        for file in self.entries.values():
            file.data, file.allocated, file.pending = file.durable, file.durable_allocated, []

    def kill(self) -> None:
        """Leave what programs see."""
        self.restart(power=False)
        self.lost = 0


class Inline(AtOnce):
    """A writer that does each job at once, and some of the work ahead."""

    def __init__(self, work_ahead: Callable[[], bool], *others: object) -> None:
        super().__init__()
        self._work_ahead = work_ahead

    def put(self, job: Job) -> None:
        """Do it, and some of the work ahead."""
        job.run()
        self._work_ahead()
        if job.done is not None:
            job.done()


class Life:
    """One process: a log that was started on the disk, and what it confirmed (`safe`, beside what it found)."""

    def __init__(self, disk: Disk) -> None:
        self.log = FileLog("/log", segment_bytes=SEGMENT_BYTES, ops=disk, make_writer=Inline)
        found = [batch for batch in self.log.recover() if isinstance(batch, Batch)]
        self.found = [int(bytes(batch.records[0].tail[:4])) for batch in found]
        self.safe: list[int] = []
        self.log.lead(NOW_MS, UNIX_MS, lambda number: None, lambda: None, self._raise)

    def append(self, name: int) -> None:
        """Append a batch; it is safe when this returns."""
        tail = b"%04d" % name + bytes([1]) * 900
        record = Record(4, b"\x90", tail, crc32(tail))
        number = self.log.next_number
        self.log.append(Batch(number, [record], NOW_MS, UNIX_MS), number - 1)
        self.safe.append(name)

    def _raise(self, exc: BaseException) -> None:
        raise exc


def first_life(disk: Disk, safe: list[int]) -> None:
    """Fill three segments, free one, close; then once more in the same log."""
    for names in (range(10), range(10, 14)):
        life = Life(disk)
        for name in names:
            life.append(name)
            safe.append(name)
        upto = life.log.oldest_upto
        if upto is not None and names[0] == 0:
            safe[:] = [name for name in safe if name > 3]
            life.log.trim(upto, NOW_MS, UNIX_MS, lambda: None)
        life.log.close(NOW_MS, UNIX_MS)
        disk.let_go()


def lost_at(number: int) -> tuple[Disk, list[int]] | None:
    """Return the disk after the life whose `number`-th sync failed, and what is safe; None: it has not so many."""
    safe: list[int] = []
    disk = Disk()
    disk.lost = number
    try:
        first_life(disk, safe)
    except PowerCut:
        disk.kill()
        return disk, safe
    return None


def judge(disk: Disk, safe: list[int], what: object, *, entries: bool) -> None:
    """Start after a power cut: all that is safe is there."""
    disk.cut_power(entries=entries)
    found = Life(disk).found
    assert set(safe) <= set(found), what
    assert found == sorted(found), what


ENTRIES = pytest.mark.parametrize("entries", [False, True], ids=["", "entries left"])


@ENTRIES
@pytest.mark.parametrize("power", [False, True], ids=["served", "power cut"])
def test_a_sync_that_failed_unheard_costs_nothing_that_was_confirmed(
    power: bool, entries: bool
) -> None:
    """The next start serves, and then the power is cut; or it is cut at once."""
    for number in itertools.count(1):
        lost = lost_at(number)
        if lost is None:
            break
        disk, safe = lost
        if not power:
            life = Life(disk)
            assert set(safe) <= set(life.found), number
            safe = life.found
            life.append(90)
            safe.append(90)
            disk.kill()
        judge(disk, safe, number, entries=entries)
    assert number > 20


@ENTRIES
def test_a_start_that_dies_after_such_a_sync_costs_nothing_either(entries: bool) -> None:
    """In each of its calls, a third of them for each sync; what it read may be on no disk."""
    for number in itertools.count(1):
        if lost_at(number) is None:
            break
        for dies_in in itertools.count(1 + number % 3, 3):
            lost = lost_at(number)
            assert lost is not None
            disk, safe = lost
            disk.dies_in = dies_in
            try:
                Life(disk)
            except PowerCut:
                judge(disk, safe, (number, dies_in), entries=entries)
                continue
            break
    assert number > 20


def test_reserve_is_zeros_on_the_disk_though_it_read_as_zeros_before() -> None:
    """The zeros of a start whose sync failed: the next one finds nothing to zero, if it believes what it reads."""
    disk = Disk()
    disk.make_directory("/log")
    directory = DataDirectory("/log", disk)
    directory.open()
    descriptor = disk.open("segment-0000000001-00001.log", os.O_RDWR | os.O_CREAT)
    disk.write(descriptor, bytes([1]) * SEGMENT_BYTES, 0)
    disk.sync(descriptor)
    disk.sync_fault = "lost"
    for _ in range(2):
        allocation = Allocation(directory, disk, SEGMENT_BYTES)
        with contextlib.suppress(OSError):
            allocation.recycle("segment-0000000001-00001.log")
    assert bytes(disk.entries["reserve-1.log"].durable) == bytes(SEGMENT_BYTES)
