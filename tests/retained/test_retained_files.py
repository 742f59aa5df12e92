"""What one retained log does, each of it reopened after: on a disk, on a simulated one, and without one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from retained_world import append_each, frame_of, read_all, same

from minibrokerd.log.fileops import FileOps
from minibrokerd.retained.files import RetainedFiles
from minibrokerd.retained.frames import Frame
from minibrokerd.retained.memory_files import MemoryFiles
from minibrokerd.retained.shelf import Files, Retained
from support.simulated_disk import SimulatedDisk

SMALL = 400  # bytes of a segment


class Log:
    """A log that can be opened again; one in memory stays as it is."""

    def __init__(self, make: Callable[[], Files]) -> None:
        self._make = make
        self.files = make()
        self.files.open()

    def again(self) -> Files:
        """Close it and open it again."""
        if not isinstance(self.files, MemoryFiles):
            sums = self.files.size_bytes, self.files.messages, self.files.first, self.files.stop
            self.files.close()
            self.files = self._make()
            self.files.open()
            now = self.files.size_bytes, self.files.messages, self.files.first, self.files.stop
            assert now == sums
        return self.files


@pytest.fixture(params=["disk", "simulated", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    """A log with small segments."""
    if request.param == "memory":
        return Log(MemoryFiles)
    ops = FileOps() if request.param == "disk" else SimulatedDisk()
    return Log(lambda: RetainedFiles(ops, str(tmp_path / "7"), segment_bytes=SMALL))


def test_a_new_log_is_empty(log: Log) -> None:
    """Nothing to read, at its end."""
    files = log.again()
    assert (files.first, files.stop, files.messages, files.size_bytes) == (0, 0, 0, 0)
    chunk = files.read(0, 100)
    assert (chunk.frames, chunk.next_offset, chunk.at_end) == ([], 0, True)
    assert files.offset_at(5) == 0


def test_what_was_appended_is_read(log: Log) -> None:
    """From every offset: the frame that holds it, or the next there is."""
    frames = [frame_of(first, 3) for first in range(10, 100, 5)]
    for frame in frames:
        log.files.append([frame])
    log.files.sync()
    files = log.again()
    assert (files.first, files.stop, files.messages) == (10, 98, 54)
    for offset in range(110):
        expected = [frame for frame in frames if frame.stop > offset]
        found = read_all(files, offset)
        assert len(found) == len(expected)
        assert all(map(same, found, expected))


def test_a_frame_is_read_however_large(log: Log) -> None:
    """At least one, if there is any; and no more than was asked for."""
    append_each(log.files, [frame_of(0, 2, size=2000), frame_of(2), frame_of(3)])
    files = log.again()
    assert [frame.first for frame in files.read(1, 1).frames] == [0]
    assert [frame.first for frame in files.read(2, 1).frames] == [2]
    assert [frame.first for frame in files.read(2, 1000).frames] == [2, 3]


def test_small_frames_of_one_append_are_joined(log: Log) -> None:
    """What was published alone, but archived together, is one frame; not across a gap or a second."""
    if isinstance(log.files, MemoryFiles):
        return
    times = {40: 1_900, 41: 2_500}
    log.files.append([frame_of(n, 1, times.get(n, 1_000)) for n in range(42) if n != 20])
    found = read_all(log.again(), most_bytes=9_000)
    assert [(frame.first, frame.stop, frame.unix_ms) for frame in found] == [
        (0, 20, 1_000),
        (21, 41, 1_900),
        (41, 42, 2_500),
    ]


def test_what_came_before_is_ignored(log: Log) -> None:
    """Of one that overlaps the rest is new."""
    log.files.append([frame_of(5, 3)])
    log.again().append([frame_of(5, 3), frame_of(6), frame_of(8)])
    assert (log.again().messages, log.files.stop) == (4, 9)
    log.again().append([frame_of(8, 3)])
    assert (log.again().messages, log.files.stop) == (6, 11)
    assert same(log.files.read(9, 1).frames[0], frame_of(9, 2, 8))


def test_an_offset_is_found_by_its_time(log: Log) -> None:
    """The first one that was published at or after it, also where the clock went back."""
    times = [100, 100, 300, 200, 250, 400, 390, 500]
    for index, time in enumerate(times):
        log.files.append([frame_of(index, 1, time, 90)])
    files = log.again()
    for time in range(0, 600, 10):
        expected = next((index for index, each in enumerate(times) if each >= time), len(times))
        assert files.offset_at(time) == expected


@pytest.mark.parametrize("bound", ["ms", "bytes", "messages"])
def test_retention_deletes_from_the_front(log: Log, bound: str) -> None:
    """What is kept is at least what was asked for, and not much more."""
    for first in range(100):
        log.files.append([frame_of(first, 1, 1_000 + first)])
    log.files.sync()
    size = log.files.size_bytes
    asked = {"ms": (10, 0, 0), "bytes": (0, size // 2, 0), "messages": (0, 0, 50)}[bound]
    gone = log.files.retain(1_099, *asked)
    kept = 11 if bound == "ms" else 50
    files = log.again()
    assert files.messages == 100 - gone == files.stop - files.first
    assert kept <= files.messages <= kept + 8
    assert [frame.first for frame in read_all(files)] == list(range(gone, 100))
    assert files.retain(1_099, 0, 0, 0) == 0


def test_retention_may_delete_all(log: Log) -> None:
    """The end of the log stays where it is."""
    log.files.append([frame_of(3, 4, 50)])
    assert log.files.retain(10_000, 100, 0, 0) == 4
    files = log.again()
    assert (files.first, files.stop, files.messages, files.size_bytes) == (7, 7, 0, 0)
    files.append([frame_of(3, 4), frame_of(7)])
    assert (log.again().first, log.files.stop) == (7, 8)


@pytest.mark.parametrize("below", [0, 4, 5, 6, 20, 33, 34, 59, 60, 61, 500])
def test_a_trim_takes_all_below(log: Log, below: int) -> None:
    """In the middle of a frame too: who reads drops the rest of it."""
    frames = [frame_of(first, 3) for first in range(5, 60, 5)]
    log.files.append(frames)
    log.files.trim(below)
    files = log.again()
    left = [offset for frame in frames for offset in range(frame.first, frame.stop)]
    left = [offset for offset in left if offset >= below]
    assert files.messages == len(left)
    assert below <= files.first <= (left[0] if left else max(below, 58)) or below < 5
    found = [frame.first for frame in read_all(files)]
    assert found == [frame.first for frame in frames if frame.stop > below]
    behind = max(files.stop, 60)
    files.append([frame_of(behind)])
    assert log.again().read(behind, 1).frames[0].first == behind


class FullDisk(SimulatedDisk):
    """Takes all but a byte of what is written, and is full, while `is_full`; a failed sync says so as well."""

    is_full = fails = False

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write, as long as there is room."""
        if not self.is_full:
            return super().write(descriptor, data, offset)
        super().write(descriptor, data[:-1], offset)
        raise OSError(errno.ENOSPC, "no space left")

    def sync(self, descriptor: int) -> None:
        """Sync, or fail."""
        if self.fails:
            raise OSError(errno.EIO, "input/output error")
        super().sync(descriptor)


def test_nothing_counts_of_what_found_no_room() -> None:
    """And nothing of it is found behind what is written in its place, which may be shorter."""
    disk = FullDisk()
    files = RetainedFiles(disk, "7", segment_bytes=SMALL)
    files.open()
    files.append([frame_of(0)])
    disk.is_full = True
    frames = [frame_of(first, 1, first * 2_000) for first in (5, 6, 7)]
    with pytest.raises(OSError, match="no space"):
        files.append(frames)
    assert (files.stop, files.messages) == (1, 1)
    disk.is_full = False
    files.append(frames[:1])
    files.sync()
    disk.let_go()
    again = RetainedFiles(disk, "7", segment_bytes=SMALL)
    again.open()
    assert [frame.first for frame in read_all(again)] == [0, 5]
    again.append(frames)
    assert [frame.first for frame in read_all(again)] == [0, 5, 6, 7]


def test_a_failed_sync_is_the_end() -> None:
    """Nobody knows what is on the disk: nothing is appended any more."""
    disk = FullDisk()
    files = RetainedFiles(disk, "7", segment_bytes=SMALL)
    files.open()
    files.append([frame_of(0)])
    disk.fails = True
    with pytest.raises(OSError, match="input/output"):
        files.sync()
    disk.fails = False
    with pytest.raises(AssertionError, match="nobody knows"):
        files.append([frame_of(1)])


def test_a_log_that_was_deleted_does_not_come_back() -> None:
    """A power cut left its files; once its end was in the log no more, they were kept aside for ever."""
    disk = SimulatedDisk()
    shelf = Retained(disk, "/data/retained")
    for number in (3, 4):
        shelf.get(number).append([frame_of(0)])
        shelf.get(number).sync()
    shelf.delete(3)
    assert {name.split("/")[1] for name in disk.durable_entries} == {"4"}


def test_logs_of_a_directory(tmp_path: Path) -> None:
    """By their numbers; one that is deleted is gone with its files."""
    shelf = Retained(FileOps(), str(tmp_path / "retained"))
    assert shelf.numbers() == []
    for number in (12, 3):
        shelf.get(number).append([frame_of(0, 2)])
        shelf.get(number).sync()
    assert (shelf.numbers(), shelf.messages) == ([3, 12], 4)
    shelf.delete(3)
    shelf.close()
    assert os.listdir(tmp_path / "retained") == ["12"]
    again = Retained(FileOps(), str(tmp_path / "retained"))
    assert (again.numbers(), again.get(12).stop) == ([12], 2)
    again.close()


def test_who_reads_the_same_reads_the_disk_once(tmp_path: Path) -> None:
    """Three groups at the same place, and one a little behind."""
    shelf = Retained(FileOps(), str(tmp_path / "retained"))
    frames = [frame_of(first, 2) for first in range(0, 100, 2)]
    append_each(shelf.get(1), frames)
    for _ in range(3):
        offset = 0
        found: list[Frame] = []
        while not (chunk := shelf.read(1, offset, 200)).at_end:
            found += chunk.frames
            offset = chunk.next_offset
        assert [frame.first for frame in (*found, *chunk.frames)] == list(range(0, 100, 2))
    assert shelf.cache.disk_reads == 1
    assert shelf.read(1, 31, 200).frames[0].first == 30
    assert shelf.cache.disk_reads == 1
    shelf.get(1).append([frame_of(100)])
    assert shelf.read(1, 100, 200).frames[0].first == 100
    assert shelf.cache.disk_reads == 2
    shelf.cache.limit(1)  # there is less memory than that
    for _ in range(2):
        shelf.cache.forget(1)
        before = shelf.cache.disk_reads
        shelf.read(1, 0, 10_000)
        shelf.read(1, 0, 10_000)
        assert shelf.cache.disk_reads == before + 2
    shelf.close()
