"""What becomes of sealed segments: frames are joined and compressed, and logs compacted."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from retained_world import append_each, bodies_in, body_of, frame_of, frame_with, read_all

from minibrokerd.log.fileops import FileOps
from minibrokerd.retained import packing
from minibrokerd.retained.cutting import apart, keys_of
from minibrokerd.retained.files import RetainedFiles
from minibrokerd.retained.frames import Frame
from minibrokerd.retained.memory_files import MemoryFiles
from minibrokerd.retained.packing import Unreadable

Said = tuple[int, bytes, int, bytes]


def opened(path: Path, segment_bytes: int = 20_000, *, compress: bool = True) -> RetainedFiles:
    """Return a log on disk."""
    files = RetainedFiles(FileOps(), str(path), segment_bytes=segment_bytes, compress=compress)
    files.open()
    return files


def tidy(files: RetainedFiles) -> None:
    """Do all that nobody waits for."""
    while files.work_ahead():
        pass


def said(frame: Frame) -> list[Said]:
    """Return offset, key, encoding and body of each message."""
    parts = apart(frame)
    assert parts is not None
    keys = keys_of(frame)
    assert keys is not None
    encodings = parts.encodings or bytes([parts.encoding]) * frame.count
    offsets = range(frame.first, frame.stop)
    return list(zip(offsets, keys, encodings, bodies_in(frame), strict=True))


def all_said(files: RetainedFiles | MemoryFiles) -> list[Said]:
    """Return what all messages of a log say."""
    return [each for frame in read_all(files, most_bytes=10_000) for each in said(frame)]


def lone(offset: int, key: bytes, encoding: int = 0, body: bytes | None = None) -> Frame:
    """Return a frame of one message."""
    bodies = [body_of(offset) if body is None else body]
    return frame_with(offset, bodies, 1_000 + offset // 10, key=key, encoding=encoding)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("keys", [1, 4])
@pytest.mark.parametrize("encodings", [1, 2])
def test_small_frames_are_joined(tmp_path: Path, compress: bool, keys: int, encodings: int) -> None:
    """With the key and the encoding that each message had, the sums that hold, and a time a second off at most."""
    files = opened(tmp_path, 100_000, compress=compress)
    random = Random(1)
    offset, frames = 0, []
    for _ in range(4_000):
        offset += random.random() < 0.003
        key = b"key %d" % random.randrange(keys)
        frames.append(lone(offset, key, random.randrange(encodings)))
        offset += 1
    append_each(files, frames)
    files.sync()
    before, size = all_said(files), files.size_bytes
    tidy(files)
    for _ in range(2):
        found = read_all(files, most_bytes=100_000)
        sealed = [frame for frame in found if frame.stop <= files._row.all[-1].low]
        assert sum(frame.count for frame in sealed) > 3_000
        assert len(sealed) < 60
        assert all(frame.count <= 1_000 for frame in sealed)
        assert all_said(files) == before
        assert files.messages == 4_000
        assert files.size_bytes == sum(map(os.path.getsize, tmp_path.glob("*.segment")))
        assert files.size_bytes < size / 1.5
        for frame in sealed:
            assert 0 <= frame.unix_ms - (1_000 + frame.first // 10) <= 1_000
        files.close()
        files = opened(tmp_path, 100_000)
    assert not files.work_ahead()


def test_a_frame_with_columns_is_joined_with_others(tmp_path: Path) -> None:
    """Those that a batch was published with, and those of messages that have the same key all."""
    files = opened(tmp_path, 5_000)
    offset = 0
    for turn in range(60):
        bodies = [body_of(offset + index) for index in range(turn % 4 + 1)]
        keys = [b"k%d" % (offset + index) for index in range(len(bodies))]
        columns = b"".join(len(key).to_bytes(4, "little") for key in keys) + b"".join(keys)
        columns += bytes(index % 2 for index in range(len(bodies)))
        names = ["key", "encoding"]
        frames = [frame_with(offset, bodies, 1_000, columns, key=b"unused", names=names)]
        frames.append(lone(offset + len(bodies), b"other", 1))
        append_each(files, frames)
        offset += len(bodies) + 1
    before = all_said(files)
    tidy(files)
    assert all_said(files) == before
    assert len(read_all(files, most_bytes=9_000)) < 60


def test_what_is_not_known_is_left_as_it_is(tmp_path: Path) -> None:
    """A meta or a tail of another make: each frame stays alone, byte by byte."""
    files = opened(tmp_path, 4_000, compress=False)
    frames = [frame_of(first) for first in range(100)]
    for index, meta in enumerate((b"", b"\xc1", b"\x93\x01\x02\x90", b"\x93\xa0\x00\x91\xa1x")):
        frames[10 * index].meta = meta
    append_each(files, frames)
    tidy(files)
    by_first = {frame.first: frame for frame in read_all(files)}
    for index in range(4):
        assert by_first[10 * index].meta == frames[10 * index].meta
        assert by_first[10 * index].count == 1


def test_what_does_not_become_smaller_stays(tmp_path: Path) -> None:
    """Large frames of bytes without a pattern: neither written anew nor looked at again after a start."""
    files = opened(tmp_path, 50_000)
    random = Random(2)
    frames = [frame_with(first, [random.randbytes(9_000)], 5) for first in range(0, 80, 2)]
    append_each(files, frames)
    data = {path.read_bytes() for path in tmp_path.glob("*-1.segment")}
    tidy(files)
    assert {path.read_bytes() for path in tmp_path.glob("*.segment")} == data
    files.close()
    assert not opened(tmp_path).work_ahead()


def test_compressed_messages_ask_for_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said which, and the bytes stay."""
    files = opened(tmp_path, 4_000)
    append_each(files, [frame_of(first, 5, size=200) for first in range(0, 100, 5)])
    tidy(files)
    with monkeypatch.context() as without:
        without.setattr(packing, "_zstd", None)
        with pytest.raises(Unreadable, match=r"minibroker\[zstd\]"):
            files.read(0, 1_000)
        other = opened(tmp_path / "other", 4_000)
        append_each(other, [frame_of(first, 5, size=200) for first in range(0, 100, 5)])
        tidy(other)
        assert len(read_all(other)) > 1
    assert len(all_said(files)) == 100
    assert files.damaged == 0


def test_work_that_is_left_leaves_nothing(tmp_path: Path) -> None:
    """At whatever slice a log is closed or trimmed."""
    for slices in range(12):
        files = opened(tmp_path / str(slices), 20_000)
        append_each(files, [frame_of(first) for first in range(1_000)])
        before = all_said(files)
        for _ in range(slices):
            files.work_ahead()
        if slices % 2:
            files.trim(700)
            tidy(files)
            before = before[700:]
        files.close()
        assert not list((tmp_path / str(slices)).glob("*.tmp"))
        assert all_said(opened(tmp_path / str(slices), 20_000)) == before


def test_what_a_trim_cut_off_is_not_written_again(tmp_path: Path) -> None:
    """The rest of a frame goes when its segment is written anew, and no message is counted twice."""
    files = opened(tmp_path, 3_000)
    append_each(files, [frame_of(first, 9, 1_000) for first in range(0, 180, 9)])
    files.trim(13)
    messages = files.messages
    assert read_all(files)[0].first == 9
    tidy(files)
    assert read_all(files)[0].first == 13
    assert files.messages == messages == 180 - 13


# -- compaction ---------------------------------------------------------------------------------------


@pytest.fixture(params=["disk", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> RetainedFiles | MemoryFiles:
    """A log on disk, or one in memory."""
    return opened(tmp_path, 3_000) if request.param == "disk" else MemoryFiles()


def compact(files: RetainedFiles | MemoryFiles, unix_ms: int, tombstone_ms: int = 0) -> int:
    """Compact all there is; return how many messages went."""
    result = files.begin_compaction(unix_ms, tombstone_ms, seal=True)
    while not result.ended:
        files.work_ahead()
    assert result.complete
    return result.removed


def test_the_last_message_of_each_key_stays(files: RetainedFiles | MemoryFiles) -> None:
    """And those without a key. The end of the log stays where it is."""
    random = Random(3)
    last: dict[bytes, Said] = {}
    others: list[Said] = []
    for offset in range(1_000):
        key = random.choice((b"", *(b"key %d" % index for index in range(30))))
        frame = lone(offset, key, body=body_of(offset))
        files.append([frame])
        if key:
            last[key] = said(frame)[0]
        else:
            others += said(frame)
    removed = compact(files, 5_000)
    expected = sorted([*last.values(), *others])
    assert all_said(files) == expected
    assert files.messages == len(expected) == 1_000 - removed
    assert files.stop == 1_000
    assert compact(files, 5_000) == 0
    files.append([lone(1_000, max(last))])
    assert files.stop == 1_001
    assert compact(files, 5_000) == 1


def test_a_tombstone_ends_its_key_and_goes_later(files: RetainedFiles | MemoryFiles) -> None:
    """What it ended goes at once; itself after its time, and then the key is gone."""
    files.append([lone(0, b"a"), lone(1, b"b"), lone(2, b"a", body=b""), lone(3, b"", body=b"")])
    assert compact(files, 2_000, 1_500) == 1
    assert [each[0] for each in all_said(files)] == [1, 2, 3]
    assert compact(files, 2_500, 1_500) == 0
    assert compact(files, 2_501, 1_500) == 1
    assert [each[0] for each in all_said(files)] == [1, 3]


def test_more_keys_than_may_be_remembered(tmp_path: Path) -> None:
    """Are compacted in several turns, and come to the same; no tombstone goes before what it ended."""
    files = opened(tmp_path, 2_000)
    last = {}
    for offset in range(600):
        key = b"key %d" % (offset * 7 % 100)
        body = b"" if offset % 9 == 0 else body_of(offset)
        append_each(files, [lone(offset, key, body=body)])
        last[key] = offset, body
    turns = 0
    while True:
        result = files.compact(9_999, 0, most_keys=30, seal=not turns)
        turns += 1
        values = {key: (offset, body) for offset, key, _, body in all_said(files)}
        assert {key: each for key, each in values.items() if each[1]} == {
            key: each for key, each in last.items() if each[1]
        }
        if result.complete:
            break
    assert turns > 5
    files.compact(9_999, 0)
    assert len(all_said(files)) == sum(1 for _, body in last.values() if body)


def test_compaction_leaves_what_is_damaged(tmp_path: Path) -> None:
    """And the tombstones behind it: what they ended may be in there."""
    files = opened(tmp_path, 1_000)
    append_each(files, [lone(offset, b"key %d" % (offset % 3)) for offset in range(60)])
    append_each(files, [lone(60 + index, b"key %d" % index, body=b"") for index in range(3)])
    append_each(files, [lone(70 + index, b"", body=bytes(100)) for index in range(30)])
    first, *_ = sorted(tmp_path.glob("*.segment"))
    data = bytearray(first.read_bytes())
    data[60] ^= 1
    first.write_bytes(data)
    result = files.compact(9_999, 0, seal=True)
    assert first.read_bytes() == data
    assert result.tombstones == 0
    assert files.damaged == 1
    offsets = [each[0] for each in all_said(files)]
    assert offsets[-33:] == [60, 61, 62, *range(70, 100)]


def test_what_is_sealed_for_compaction_is_not_small_or_old(tmp_path: Path) -> None:
    """So frequent passes do not leave a segment each; memory has no segments."""
    files = opened(tmp_path, 10_000_000)
    append_each(files, [lone(offset, b"k") for offset in range(3)])
    at_unix_ms = files.read(0, 1).frames[0].unix_ms
    for _ in range(5):
        assert files.seal_to_compact(at_unix_ms + 3_599_000) == 0
    assert len(list(tmp_path.glob("*.segment"))) == 1
    assert files.seal_to_compact(at_unix_ms + 3_600_000) == 3
    append_each(files, [lone(3, b"k", body=bytes(64 * 1024))])
    assert files.seal_to_compact(at_unix_ms) == 4
    assert files.seal_to_compact(at_unix_ms) == 4
    assert len(list(tmp_path.glob("*.segment"))) == 3
