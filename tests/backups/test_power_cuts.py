"""A power cut at any call while a back-up is written: each manifest that is there then has all of its files."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from random import Random

from backup_world import Numbered
from log_world import Crash

from minibrokerd.backups.backing import back_up
from minibrokerd.backups.pace import Pace
from minibrokerd.backups.shelf import Shelf
from minibrokerd.backups.verifying import read_whole
from minibrokerd.log.fileops import FileOps
from support.simulated_disk import File, SimulatedDisk, entered

PLACE = Path("place")
CUTS = 4  # states that one cut may leave, besides that with nothing unsynced


class CutDisk(SimulatedDisk):
    """Forgets what was not synced, and has no current any more from the n-th change on."""

    left = 10**9

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write, if there is current."""
        self._step()
        return super().write(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        """Sync, if there is current."""
        self._step()
        super().sync(descriptor)

    def sync_directory(self, descriptor: int) -> None:
        """Sync the entries, if there is current."""
        self._step()
        super().sync_directory(descriptor)

    def rename(self, old: str, new: str) -> None:
        """Rename, if there is current."""
        self._step()
        super().rename(old, new)

    def unlink(self, path: str) -> None:
        """Remove, if there is current."""
        self._step()
        super().unlink(path)

    def after_the_cut(self, random: Random | None) -> SimulatedDisk:
        """Return what is there: what was synced, and of the rest of the entries what `random` says."""
        entries = dict(self.durable_entries)
        for change in self.pending if random is not None else ():
            assert random is not None
            if random.random() < 0.5:
                entered(entries, change)
        return SimulatedDisk({name: File(bytes(file.durable)) for name, file in entries.items()})


def take(log: Numbered, disk: SimulatedDisk) -> None:
    """Take a back-up to a disk, on which one is kept."""
    shelf = Shelf(PLACE, disk)
    shelf.open()
    back_up(log.path, shelf, FileOps(), keep=1, pace=Pace())
    disk.let_go()


def newest(disk: SimulatedDisk) -> int:
    """Return the number of the newest back-up; each one that is there must have what it names."""
    shelf = Shelf(PLACE, disk)
    manifests = shelf.manifests()
    assert not shelf.unreadable
    for manifest in manifests:
        for file, sha256 in manifest.files.items():
            read_whole(shelf, file, sha256)
    return max(manifest.number for manifest in manifests)


async def test_a_power_cut_at_any_call_leaves_whole_back_ups(tmp_path: Path) -> None:
    log, first = Numbered(tmp_path / "d"), CutDisk()
    await log.fill(2)
    take(log, first)
    await log.fill(1)
    await log.free()
    found = set()
    for calls in count():
        disk = CutDisk({name: File(bytes(file.data)) for name, file in first.entries.items()})
        disk.left, whole = calls, True
        try:
            take(log, disk)
        except Crash:
            whole = False
        for random in (None, *map(Random, range(CUTS))):
            found.add(newest(disk.after_the_cut(random)))
        if whole:
            break
    assert calls > 12
    assert found == {1, 2}
    assert newest(disk.after_the_cut(None)) == 2
    log.engine.close()
