"""One bit that flipped, anywhere: it is told and skipped, and never read as something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from retained_world import append_each, bodies_in, body_of, frame_of, frame_with, read_all

from minibrokerd.log.fileops import FileOps
from minibrokerd.retained import points
from minibrokerd.retained.files import RetainedFiles
from minibrokerd.retained.frames import HEAD, SYNCED_BEFORE, encode_frame

STEP_BYTES = 500  # between two points
COUNT = 180


def opened(path: Path) -> RetainedFiles:
    """Return a log of small segments."""
    files = RetainedFiles(FileOps(), str(path), segment_bytes=4_000)
    files.open()
    return files


@pytest.fixture
def close_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points close to each other."""
    monkeypatch.setattr(points, "STEP_BYTES", STEP_BYTES)


@pytest.fixture(params=["written", "tidied"])
def log(request: pytest.FixtureRequest, tmp_path: Path, close_points: None) -> Path:
    """A log of several segments; the newest one has frames that are not in an index."""
    files = opened(tmp_path)
    for first in range(0, COUNT, 3):
        files.append([frame_with(first, [body_of(first + i, 60) for i in range(3)], first)])
    files.sync()
    while request.param == "tidied" and files.work_ahead():
        pass
    files.close()
    return tmp_path


def offsets_in(files: RetainedFiles) -> tuple[list[int], int]:
    """Return the offsets of all messages, each with the body it should have, and how many were skipped."""
    found, skipped, offset = [], 0, 0
    while True:
        chunk = files.read(offset, 2_000)
        for frame in chunk.frames:
            for index, body in enumerate(bodies_in(frame)):
                assert body == body_of(frame.first + index, 60)
                found.append(frame.first + index)
        skipped += chunk.skipped_damage
        offset = chunk.next_offset
        if chunk.at_end:
            return found, skipped


def flip(path: Path, at: int, bit: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_a_bit_that_flipped_is_told_and_skipped(log: Path) -> None:
    """In each segment; what is lost is no more than up to the next point, and what is said to be lost."""
    segments = sorted(log.glob("*.segment"))
    assert len(segments) >= 4
    tried = 0
    for path in segments:
        for at in (*range(HEAD.size), *range(HEAD.size, path.stat().st_size, 37)):
            flip(path, at, at % 8)
            files = opened(log)
            found, skipped = offsets_in(files)
            assert found == sorted(set(found))
            assert 0 < COUNT - len(found) <= max(9, skipped)
            assert skipped == COUNT - len(found)
            assert files.damaged == 1
            offsets_in(files)
            assert files.damaged == 1
            files.work_ahead()
            files.close()
            flip(path, at, at % 8)
            tried += 1
    assert tried > 300
    assert offsets_in(opened(log)) == (list(range(COUNT)), 0)


def test_nothing_rests_on_an_index(log: Path) -> None:
    """Flipped, cut, missing, or of another segment: all is read."""
    indexes = sorted(log.glob("*.index"))
    assert len(indexes) >= 4
    spoilt: list[Callable[[bytes], bytes]] = [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: indexes[0].read_bytes() if data != indexes[0].read_bytes() else b"",
    ]
    for path in indexes:
        data = path.read_bytes()
        for at in range(0, len(data), 5):
            spoilt.append(lambda data, at=at: data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])  # type: ignore[misc]
        for spoil in spoilt:
            path.write_bytes(spoil(data))
            files = opened(log)
            assert (files.messages, files.first, files.stop) == (COUNT, 0, COUNT)
            assert offsets_in(files) == (list(range(COUNT)), 0)
            assert files.offset_at(COUNT // 2) <= COUNT // 2
            files.close()
        del spoilt[4:]


def test_a_cut_file_is_damage_where_it_is_sealed(log: Path) -> None:
    """What follows is read; who reads is told."""
    path = sorted(log.glob("*.segment"))[1]
    data = path.read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        files = opened(log)
        found, _ = offsets_in(files)
        assert found == sorted(set(found))
        assert (found[0], found[-1]) == (0, COUNT - 1)
        assert len(found) < COUNT
        files.close()


def test_a_frame_within_a_body_is_never_read(tmp_path: Path) -> None:
    """Behind a head that does not verify nothing is believed but what is known from elsewhere."""
    files = opened(tmp_path)
    inner = b"".join(map(bytes, encode_frame(frame_of(6, 1, 1), SYNCED_BEFORE)))
    append_each(files, [frame_of(0, 1, 1), frame_with(5, [inner * 3], 2), frame_of(9, 1, 3)])
    files.sync()
    (path,) = tmp_path.glob("*.segment")
    at = frame_of(0, 1, 1).size
    data = path.read_bytes()
    assert inner in data[at + HEAD.size :]
    for place in range(at, at + HEAD.size):
        flip(path, place, 3)
        assert {frame.first for frame in read_all(files)} <= {0, 9}
        again = opened(tmp_path)  # as after a crash: no index says where a frame begins
        assert {frame.first for frame in read_all(again)} <= {0, 9}
        path.write_bytes(data)


def test_what_was_synced_behind_damage_is_kept_without_an_index(tmp_path: Path) -> None:
    """Each frame says that those before it were on the disk: then one that does not verify is not torn."""
    files = opened(tmp_path)
    for first in range(5):
        files.append([frame_of(first)])
        files.sync()
    (path,) = tmp_path.glob("*.segment")
    flip(path, frame_of(0).size + HEAD.size + 2, 1)
    again = opened(tmp_path)
    assert [frame.first for frame in read_all(again)] == [0, 2, 3, 4]
    assert (again.stop, again.damaged) == (5, 1)


def test_reading_goes_on_while_segments_go(tmp_path: Path) -> None:
    """One thread appends, tidies, trims and deletes; another reads: ascending, and each as it was published."""
    files = opened(tmp_path)
    done, failures = [False], []

    def follow() -> None:
        offset = 0
        try:
            while not (done[0] and offset >= files.stop):
                chunk = files.read(offset, 1_000)
                for frame in chunk.frames:
                    assert frame.stop > offset
                    for index, body in enumerate(bodies_in(frame)):
                        assert body == body_of(frame.first + index, 60)
                assert chunk.next_offset >= offset
                assert chunk.skipped_damage == 0
                offset = chunk.next_offset if not done[0] or not chunk.at_end else files.stop
                files.offset_at(offset)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    readers = [Thread(target=follow) for _ in range(2)]
    for reader in readers:
        reader.start()
    for first in range(0, 3_000, 3):
        files.append([frame_with(first, [body_of(first + i, 60) for i in range(3)], first)])
        files.work_ahead()
        if first % 300 == 0:
            files.retain(first, 0, 60_000, 0)
        if first % 450 == 0:
            files.trim(files.first + 7)
    done[0] = True
    for reader in readers:
        reader.join()
    assert not failures, failures
    assert files.damaged == 0
