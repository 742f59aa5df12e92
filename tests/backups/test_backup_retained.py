"""Retained logs in back-ups: copied behind the log, once each segment, brought back and verified."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from zlib import crc32

import pytest
from backup_world import Numbered, Watched, take

from minibrokerd.backups.bringing import bring_back
from minibrokerd.backups.failures import Unsettled
from minibrokerd.backups.shelf import Shelf
from minibrokerd.backups.verifying import verify
from minibrokerd.log.fileops import FileOps
from minibrokerd.retained.files import RetainedFiles
from minibrokerd.retained.frames import Frame


def opened(data: Path, number: int = 17) -> RetainedFiles:
    """Return a retained log of a data directory."""
    path = data / "retained" / str(number)
    files = RetainedFiles(FileOps(), str(path), segment_bytes=1_000, compress=False)
    files.open()
    return files


def frame(first: int) -> Frame:
    """Return a frame of one message, of a make that is left alone."""
    tail = b"message %d" % first + bytes(60)
    return Frame(first, 1, 1_000, b"meta", tail, crc32(tail))


def offsets(files: RetainedFiles) -> list[int]:
    """Return the offsets of all messages; `frame` made each."""
    found, offset = [], 0
    while True:
        chunk = files.read(offset, 10_000)
        for each in chunk.frames:
            assert bytes(each.tail) == frame(each.first).tail
            found.append(each.first)
        offset = chunk.next_offset
        if chunk.at_end:
            return found


@pytest.fixture
async def log(tmp_path: Path) -> Numbered:
    """A log that is open, and a retained one beside it."""
    log = Numbered(tmp_path / "data")
    await log.write()
    files = opened(log.path)
    files.append([frame(first) for first in range(50)])
    files.sync()
    files.close()
    return log


async def test_a_back_up_brings_retained_logs_back(log: Numbered, tmp_path: Path) -> None:
    """With the ends of their segments, and what was written of the newest."""
    backed = take(log.path, tmp_path / "out")
    assert len(backed.manifest.retained) > 3
    bring_back(
        Shelf(tmp_path / "out", FileOps()), None, tmp_path / "back", FileOps(), new_sessions=False
    )
    assert offsets(opened(tmp_path / "back")) == list(range(50))
    verified = verify(Shelf(tmp_path / "out", FileOps()), backed.manifest)
    assert verified.wrong == []


async def test_a_segment_is_copied_once(log: Numbered, tmp_path: Path) -> None:
    """The next back-up copies what came behind it; files that no back-up needs are removed."""
    first = take(log.path, tmp_path / "out")
    files = opened(log.path)
    files.append([frame(50)])
    files.close()
    second = take(log.path, tmp_path / "out")
    shared = {row.file for row in first.manifest.retained} & {
        row.file for row in second.manifest.retained
    }
    assert len(shared) == len(first.manifest.retained) - 1
    files = opened(log.path)
    files.trim(51)
    files.close()
    third = take(log.path, tmp_path / "out", keep=1)
    names = {name for name in os.listdir(tmp_path / "out") if name.startswith("retained-")}
    assert names == {row.file for row in third.manifest.retained}


async def test_another_life_of_a_log_is_told_by_its_ends(log: Numbered, tmp_path: Path) -> None:
    """A segment of the same name and size, with other messages at its end."""
    files = opened(log.path)
    files.append([frame(50)])
    files.close()
    shutil.copytree(log.path / "retained", tmp_path / "before")
    files = opened(log.path)
    files.append([frame(51)])
    files.close()
    take(log.path, tmp_path / "out")
    shutil.rmtree(log.path / "retained")
    shutil.copytree(tmp_path / "before", log.path / "retained")
    files = opened(log.path)
    files.append([frame(52)])
    files.close()
    take(log.path, tmp_path / "out")
    bring_back(
        Shelf(tmp_path / "out", FileOps()), None, tmp_path / "back", FileOps(), new_sessions=False
    )
    assert offsets(opened(tmp_path / "back")) == [*range(51), 52]


async def test_what_is_archived_while_the_log_is_copied_is_there(
    log: Numbered, tmp_path: Path
) -> None:
    """The copy of the log may say that it is in the archive."""
    files, ops = opened(log.path), Watched()
    ops.when = lambda name, offset: name.startswith("segment-")

    def happens() -> None:
        files.append([frame(50)])
        files.sync()

    ops.happens = happens
    take(log.path, tmp_path / "out", ops)
    bring_back(
        Shelf(tmp_path / "out", FileOps()), None, tmp_path / "back", FileOps(), new_sessions=False
    )
    assert offsets(opened(tmp_path / "back")) == list(range(51))


async def test_what_is_deleted_meanwhile_is_looked_for_again(log: Numbered, tmp_path: Path) -> None:
    """Until it holds still, or for so many rounds."""
    files, ops = opened(log.path), Watched()
    ops.when = lambda name, offset: name.endswith(".segment")
    turns = [0]

    def happens() -> None:
        turns[0] += 1
        if turns[0] < 4:
            files.trim(files.first + 11)

    ops.happens = happens
    take(log.path, tmp_path / "out", ops)
    bring_back(
        Shelf(tmp_path / "out", FileOps()), None, tmp_path / "back", FileOps(), new_sessions=False
    )
    back = opened(tmp_path / "back")
    assert back.first == 33
    assert [offset for offset in offsets(back) if offset >= 33] == list(range(33, 50))

    def never_still() -> None:
        stop = files.stop
        files.append([frame(stop + index) for index in range(20)])
        files.trim(stop)

    ops.happens = never_still
    with pytest.raises(Unsettled):
        take(log.path, tmp_path / "out", ops)


async def test_damage_is_copied_and_said(log: Numbered, tmp_path: Path) -> None:
    """It stops no back-up of the rest; whoever verifies is told."""
    path = sorted((log.path / "retained" / "17").glob("*.segment"))[1]
    data = bytearray(path.read_bytes())
    data[80] ^= 1
    path.write_bytes(data)
    backed = take(log.path, tmp_path / "out")
    (wrong,) = verify(Shelf(tmp_path / "out", FileOps()), backed.manifest).wrong
    assert "when it was copied" in wrong
