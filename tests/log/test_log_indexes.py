"""Side indexes: they save time, and nothing rests on them. Whatever becomes of one, a start finds the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from log_world import Engine

from minibrokerd.log.failures import DamagedLog
from minibrokerd.log.filelog import FileLog
from minibrokerd.log.seam import RECORD_HEAD_BYTES, Batch, Place

SEGMENT_BYTES = 8192
BATCHES = 30
HEAD_BYTES = 80  # of a slice of an index, about
NAME_BYTES = 8  # of a record: the start of its tail, and its entry in a digest


class Indexed:
    """A log whose digests are the names of its records, so that a start shows what it has from where."""

    def __init__(self, path: Path) -> None:
        self.engine = Engine(path, segment_bytes=SEGMENT_BYTES).open()
        self.places: dict[bytes, Place] = {}
        self._segment = 1
        self._payload = b""

    async def append(self, name: bytes) -> None:
        """Append a batch of one record, and digest the segment before if it is full."""
        await self.engine.append(name + b"." * 500)
        place = self.engine.log.last_place
        assert place is not None
        if place.segment != self._segment:
            self.digest()
            self._segment = place.segment
        self._payload += name
        self.places[name] = place

    def digest(self) -> None:
        """Let the index go on with what was appended since the last call."""
        self.engine.log.segments.keep_digest(self._segment, self._payload)
        self._payload = b""


async def write(path: Path) -> Indexed:
    """Write some segments with their indexes, and close the log."""
    log = Indexed(path)
    for number in range(BATCHES):
        await log.append(b"%08d" % number)
        if number == BATCHES - 2:
            log.digest()  # the last batch stands behind the index
    log.engine.close()
    return log


def found(path: Path) -> tuple[list[bytes], int]:
    """Return the names that a start finds, and how many of them came out of indexes."""
    log = FileLog(path, segment_bytes=SEGMENT_BYTES, digests=True)
    names: list[bytes] = []
    digested = 0
    for part in log.recover():
        if isinstance(part, Batch):
            names += [bytes(record.tail[:NAME_BYTES]) for record in part.records]
        else:
            starts = range(0, len(part.payload), NAME_BYTES)
            names += [part.payload[at : at + NAME_BYTES] for at in starts]
            digested += len(starts)
    log.abandon()
    return names, digested


def files(path: Path, pattern: str) -> list[Path]:
    """Return the files of a directory that match, oldest first."""
    return sorted(path.glob(pattern))


def flip(path: Path, at: int, bit: int) -> None:
    """Turn one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


async def test_a_start_reads_indexes_and_behind_them_batches(tmp_path: Path) -> None:
    log = await write(tmp_path)
    assert found(tmp_path) == (list(log.places), BATCHES - 1)


async def test_a_segment_that_is_rewritten_keeps_what_its_index_says(tmp_path: Path) -> None:
    """A start that is killed before the engine says it anew does not make the next one slow."""
    log = Indexed(tmp_path)
    for number in range(BATCHES):
        await log.append(b"%08d" % number)
        if number in (BATCHES - 4, BATCHES - 2):
            log.digest()
    log.engine.log.abandon()
    for _ in range(3):
        engine = Engine(tmp_path, segment_bytes=SEGMENT_BYTES)
        engine.log = FileLog(tmp_path, segment_bytes=SEGMENT_BYTES, digests=True)
        for _ in engine.log.recover():
            continue
        engine.start()
        engine.log.abandon()
        assert found(tmp_path) == (list(log.places), BATCHES - 1)
        assert len(files(tmp_path, "*.index")) == max(at.segment for at in log.places.values())


async def test_what_the_engine_says_of_a_rewritten_segment_takes_the_place_of_what_was_kept(
    tmp_path: Path,
) -> None:
    log = Indexed(tmp_path)
    for number in range(BATCHES):
        await log.append(b"%08d" % number)
        if number == BATCHES - 2:
            log.digest()
    log.engine.log.abandon()
    newest = log.places[b"%08d" % (BATCHES - 1)].segment
    engine = Engine(tmp_path, segment_bytes=SEGMENT_BYTES)
    engine.log = FileLog(tmp_path, segment_bytes=SEGMENT_BYTES, digests=True)
    for _ in engine.log.recover():
        continue
    engine.start()
    payload = b"".join(name for name, at in log.places.items() if at.segment == newest)
    engine.log.segments.keep_digest(newest, payload)
    engine.log.abandon()
    assert found(tmp_path) == (list(log.places), BATCHES)


async def test_a_flipped_bit_of_an_index_costs_time_and_nothing_else(tmp_path: Path) -> None:
    log = await write(tmp_path)
    indexes = files(tmp_path, "*.index")
    assert len(indexes) > 2
    for path in (indexes[0], indexes[-1]):
        size_bytes = path.stat().st_size
        for at in (*range(HEAD_BYTES), *range(HEAD_BYTES, size_bytes, NAME_BYTES - 1)):
            flip(path, at, at % 8)
            names, digested = found(tmp_path)
            assert names == list(log.places), f"bit {at % 8} of byte {at} of {path.name}"
            assert digested < BATCHES - 1
            flip(path, at, at % 8)


async def test_an_index_that_is_cut_costs_time_and_nothing_else(tmp_path: Path) -> None:
    log = await write(tmp_path)
    path = files(tmp_path, "*.index")[-1]
    whole = path.read_bytes()
    for size_bytes in range(0, len(whole), 5):
        path.write_bytes(whole[:size_bytes])
        assert found(tmp_path)[0] == list(log.places)


async def test_what_an_index_says_of_the_newest_segment_is_compared_with_its_bytes(
    tmp_path: Path,
) -> None:
    """A start may not take an index for bytes that it did not look at: nobody else would."""
    log = await write(tmp_path)
    newest = max(place.segment for place in log.places.values())
    place = min(place for place in log.places.values() if place.segment == newest)
    flip(files(tmp_path, "segment-*.log")[-1], place.offset + RECORD_HEAD_BYTES + 20, 3)
    with pytest.raises(DamagedLog):
        found(tmp_path)


async def test_a_record_that_is_not_as_it_was_written_is_not_read_back(tmp_path: Path) -> None:
    """It is kept aside instead; those beside it are read."""
    log = await write(tmp_path)
    first, spoilt, third = (log.places[b"%08d" % number].offset for number in range(3))
    flip(files(tmp_path, "segment-*.log")[0], spoilt + RECORD_HEAD_BYTES + 20, 5)
    engine = Engine(tmp_path, segment_bytes=SEGMENT_BYTES)
    engine.log = FileLog(tmp_path, segment_bytes=SEGMENT_BYTES, digests=True)
    for _ in engine.log.recover():
        continue
    engine.start()
    before, none, behind = engine.log.read(1, [first, spoilt, third])
    engine.close()
    assert before is not None
    assert behind is not None
    assert (before.tail[:NAME_BYTES], behind.tail[:NAME_BYTES]) == (b"00000000", b"00000002")
    assert none is None
    (aside,) = files(tmp_path, "damaged-1-*.bin")
    assert b"00000001" in aside.read_bytes()
