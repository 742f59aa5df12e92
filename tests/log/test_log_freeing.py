"""Promises about segments that are given up: what is newer stays, whenever a crash comes."""

from __future__ import annotations

import asyncio
import errno
import shutil
from pathlib import Path

from log_world import NOW_MS, PATIENCE_SECONDS, UNIX_MS, Crash, CrashingOps, Engine

SMALL = 4096


async def filled(path: Path, segments: int, ops: CrashingOps | None = None) -> Engine:
    """Return an open log that has as many full segments, and one that is written."""
    engine = Engine(path, segment_bytes=SMALL, ops=ops).open()
    while engine.log.disk_bytes <= segments * SMALL:
        await engine.append(b"%04d" % engine.log.next_number * 100)
    return engine


async def free(engine: Engine, upto: int) -> None:
    """Free and wait until the files are gone."""
    gone = asyncio.Event()
    engine.log.trim(upto, NOW_MS, UNIX_MS, gone.set)
    await asyncio.wait_for(gone.wait(), PATIENCE_SECONDS)


def names(path: Path) -> list[str]:
    """Return the segment files."""
    return sorted(entry.name for entry in path.glob("segment-*"))


def numbers(engine: Engine) -> list[int]:
    """Return which batches a recovery yielded, by the numbers that `filled` put into them."""
    return [int(bytes(batch.records[0].tail[:4])) for batch in engine.recovered]


async def test_a_new_log_has_nothing_to_free(tmp_path: Path) -> None:
    engine = await filled(tmp_path / "d", 0)
    assert engine.log.oldest_upto is None
    assert engine.log.disk_bytes == SMALL
    engine.close()


async def test_the_oldest_segment_goes_and_the_next_start_does_without_it(tmp_path: Path) -> None:
    path = tmp_path / "d"
    engine = await filled(path, 3)
    newest, upto = engine.number, engine.log.oldest_upto
    assert upto is not None
    before = engine.log.disk_bytes
    await free(engine, upto)
    assert engine.log.disk_bytes == before - SMALL
    assert engine.log.oldest_upto is not None
    assert engine.log.oldest_upto > upto
    assert "segment-0000000001-00001.log" not in names(path)
    await engine.append(b"%04d" % 9_999)
    for clean in (False, True, True):
        if clean:
            engine.close()
        else:
            engine.log.abandon()
        engine = Engine(path, segment_bytes=SMALL).open()
        kept = numbers(engine)
        assert kept[-1] == 9_999
        assert kept[:-1] == list(range(kept[0], kept[-2] + 1))
        assert kept[0] > 1
        assert engine.log.next_number > newest
    oldest = engine.log.oldest_upto
    assert oldest is not None
    await free(engine, oldest)
    engine.close()
    engine = Engine(path, segment_bytes=SMALL).open()
    assert numbers(engine)[0] > kept[0]
    engine.close()


async def test_several_segments_go_at_once_and_the_reserve_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "d"
    engine = await filled(path, 6)
    await free(engine, engine.number - 1)
    assert len(names(path)) == 1
    assert engine.log.segments.reserve_segments == 3
    assert engine.log.oldest_upto is None
    engine.log.abandon()
    engine = Engine(path, segment_bytes=SMALL).open()
    assert numbers(engine)
    engine.close()


async def test_a_crash_at_any_step_of_the_freeing_loses_nothing_newer(tmp_path: Path) -> None:
    crash_at, path = 0, tmp_path / "d"
    while True:
        crash_at += 1
        shutil.rmtree(path, ignore_errors=True)
        ops = CrashingOps()
        engine = await filled(path, 4, ops)
        upto = engine.log.oldest_upto
        assert upto is not None
        last = engine.number
        engine.log._stop_writer()  # its work is done here, in a thread whose calls are counted
        ops.calls, ops.crash_at = 0, crash_at
        ended = False
        try:
            engine.log._tail.free(upto, NOW_MS, UNIX_MS)
            ended = True
        except Crash:
            pass
        engine.log.abandon()
        engine = Engine(path, segment_bytes=SMALL).open()
        found = numbers(engine)
        assert found == list(range(found[0], found[-1] + 1)), crash_at
        assert found[-1] == last, crash_at
        assert found[0] <= upto + 1, crash_at
        assert engine.log.segments.reserve_segments == 3
        await engine.append(b"%04d" % (last + 1))
        engine.close()
        if ended:
            break
    assert crash_at > 3  # the marker, the file, the directory


class FullIndexOps(CrashingOps):
    """A disk that has no room for the end of a side index."""

    def __init__(self) -> None:
        super().__init__()
        self._indexes: set[int] = set()  # descriptors

    def open(self, path: str, flags: int) -> int:
        """Open, and note whether that is an index."""
        descriptor = super().open(path, flags)
        self._indexes.discard(descriptor)
        if path.endswith(".index"):
            self._indexes.add(descriptor)
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write; of an index the beginning only."""
        if descriptor not in self._indexes:
            return super().write(descriptor, data, offset)
        if offset:
            raise OSError(errno.ENOSPC, "no space for the end of an index")
        return super().write(descriptor, memoryview(data)[:10], offset)


async def test_an_index_that_was_written_in_part_goes_with_its_segment(tmp_path: Path) -> None:
    """Else a full disk would have one more of them for every segment, until the next start."""
    path = tmp_path / "d"
    engine = await filled(path, 3, FullIndexOps())
    engine.log.segments.keep_digest(1, b"what it says")
    await engine.append(b"%04d" % 9_999)  # the writer does one thing after the other
    assert [name for name in names(path) if name.endswith(".index")] == [
        "segment-0000000001-00001.index"
    ]
    upto = engine.log.oldest_upto
    assert upto is not None
    await free(engine, upto)
    assert not [name for name in names(path) if name.endswith(".index")]
    engine.close()
