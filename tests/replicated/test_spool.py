"""Places in a stream, and the spool that may be lost: what it says is verified, and what it lacks is fetched."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from log_kinds import SEGMENT_BYTES, Hand, InStream
from log_world import FaultyOps
from sim_stream import NO_FAULTS, Faults

from minibrokerd.log.seam import BATCH_HEADER_BYTES, Batch, Elsewhere, GivenUp, Place
from minibrokerd.replicated import spool as spool_module
from minibrokerd.replicated.failures import BodyGone
from minibrokerd.replicated.log import JetStreamLog
from minibrokerd.replicated.places import Places
from minibrokerd.replicated.spool import MOST_WAITING_BYTES, Spool


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are for servers that take time; these take ticks."""
    for name in ("leading.PAUSE_S", "leading.SLOW_PAUSE_S", "leading.MOST_PAUSE_S"):
        monkeypatch.setattr(f"minibrokerd.replicated.{name}", 0.0)
    for name in ("PAUSE_S", "MOST_PAUSE_S"):
        monkeypatch.setattr(f"minibrokerd.replicated.reading_back.{name}", 0.0)


class Full(FaultyOps):
    """A disk without space, while `full`."""

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write, unless there is no space."""
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(descriptor, data, offset)


class Spooled(InStream):
    """A simulated stream, and a spool for each broker, written before the next step."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self.ops = Full()
        self.reads: list[int] = []  # the entries that were asked for, by whom is not noted

    def open(self) -> JetStreamLog:
        """Return a log, as of another broker."""
        spool = Spool(self.path, self.ops)
        log = JetStreamLog("simulated", self._connect, "a test", SEGMENT_BYTES, spool=spool)
        log.history.keep = spool.put
        return log


def names_in(path: Path) -> list[str]:
    """Return what stands in a directory."""
    return sorted(os.listdir(path))


def spool_of(hand: Hand) -> Spool:
    """Return the spool of a broker."""
    assert isinstance(hand.log, JetStreamLog)
    assert hand.log.back.spool is not None
    return hand.log.back.spool


Told = dict[bytes, tuple[Place, int]]  # of each tail: where its record stands, and its batch


async def some(hand: Hand, count: int, base: int = 0) -> Told:
    """Append batches of one record, named from `base` on; return where they stand."""
    told: Told = {}
    for index in range(count):
        tail = b"%04d" % (base + index) + bytes(300)
        number = await hand.append(tail)
        assert hand.log.last_place is not None
        told[tail] = hand.log.last_place, number
    return told


async def look(hand: Hand, told: Told) -> int:
    """Read each of them back, also several at once; return how often something had to be fetched."""
    fetched = 0
    stretches: dict[int, list[tuple[int, bytes]]] = {}
    for tail, (place, _) in told.items():
        stretches.setdefault(place.segment, []).append((place.offset, tail))
    for stretch, these in stretches.items():
        offsets = [offset for offset, _ in these]
        for some_offsets in (offsets, offsets[-1:], offsets[1:3]):
            if not some_offsets:
                continue
            try:
                found = hand.log.read(stretch, some_offsets)
            except Elsewhere as elsewhere:
                fetched += 1
                found = await asyncio.wait_for(elsewhere.fetch(), 30)
            wanted = [tail for offset, tail in these if offset in some_offsets]
            assert [one and bytes(one.tail) for one in found] == wanted
    return fetched


def flip(hand: Hand, place: Place, at: int = 40) -> None:
    """Turn a bit of the record at a place, in the spool."""
    path = Path(spool_of(hand).path_of(place.segment))
    data = bytearray(path.read_bytes())
    data[place.offset + at] ^= 1
    path.write_bytes(data)


# -- places -----------------------------------------------------------------------------------------


def test_a_place_says_which_entries_have_it() -> None:
    places = Places()
    assert [places.note(7, 7 + index, 100) for index in range(4)] == [0, 100, 200, 300]
    assert places.find(7, 0, 99) == (7, 7, 0)
    assert places.find(7, 100, 399) == (8, 10, 100)
    assert places.find(8, 0, 0) is None
    assert [places.size_of(7, sequence) for sequence in (6, 7, 10, 11)] == [None, 100, 100, None]


def test_entries_that_were_never_taken_have_no_bytes() -> None:
    """An epoch record about an append without an answer stands between two batches of ours."""
    places = Places()
    places.note(1, 1, 50)
    assert places.note(1, 4, 60) == 50
    assert [places.size_of(1, sequence) for sequence in (1, 2, 3, 4)] == [50, 0, 0, 60]
    assert places.find(1, 50, 109) == (4, 4, 50)


def test_what_is_read_once_more_stands_where_it_stood() -> None:
    places = Places()
    first = [places.note(5, sequence, 10 * sequence) for sequence in range(5, 9)]
    assert [places.note(5, sequence, 10 * sequence) for sequence in range(5, 9)] == first


def test_a_stretch_is_given_up_when_all_of_it_is_below_the_start() -> None:
    places = Places()
    for stretch in (1, 11, 21):
        for sequence in range(stretch, stretch + 10):
            places.note(stretch, sequence, 8)
    assert places.give_up(15) == [1]
    assert places.has(11)
    assert places.give_up(21) == [11]
    assert places.find(1, 0, 0) is None


# -- what may become of a spool ----------------------------------------------------------------------


async def test_what_was_appended_is_read_without_the_stream(tmp_path: Path) -> None:
    kind = Spooled(tmp_path)
    hand = Hand(kind).lead()
    told = await some(hand, 40)
    assert len({place.segment for place, _ in told.values()}) > 2
    kind.stream.faults = Faults(away=1.0)
    assert await look(hand, told) == 0
    hand.crash()


async def test_what_was_read_at_a_start_is_read_without_the_stream(tmp_path: Path) -> None:
    kind = Spooled(tmp_path)
    hand = Hand(kind).lead()
    await some(hand, 40)
    hand.crash()
    again = hand.again().lead()
    told = {bytes(batch.records[0].tail): (batch.place, batch.number) for batch in again.found}
    assert len(told) == 40
    assert await look(again, told) == 0  # type: ignore[arg-type]
    again.crash()


@pytest.mark.parametrize("at", [0, 4, 10, 20, 100])
async def test_a_bit_that_turned_is_not_believed(tmp_path: Path, at: int) -> None:
    """In the length, the type, the checksum, or the body: what is handed on is what was appended."""
    hand = Hand(Spooled(tmp_path)).lead()
    told = await some(hand, 12)
    for place, _ in list(told.values())[::3]:
        flip(hand, place, at)
    assert await look(hand, told) > 0
    hand.crash()


def each_file(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return what does that to each file of a directory."""

    def to_all(path: Path) -> None:
        for file in path.iterdir():
            change(file)

    return to_all


LOST: dict[str, Callable[[Path], None]] = {
    "deleted": shutil.rmtree,
    "without its files": each_file(Path.unlink),
    "cut": each_file(lambda file: os.truncate(file, file.stat().st_size // 2)),
    "empty": each_file(lambda file: os.truncate(file, 0)),
    "zeros": each_file(lambda file: file.write_bytes(bytes(file.stat().st_size))),
}


@pytest.mark.parametrize("how", LOST)
async def test_a_spool_that_is_lost_is_fetched_and_goes_on(tmp_path: Path, how: str) -> None:
    hand = Hand(Spooled(tmp_path)).lead()
    told = await some(hand, 30)
    LOST[how](Path(spool_of(hand).path))
    assert await look(hand, told) > 0
    later = await some(hand, 30, base=30)
    assert await look(hand, told | later) > 0
    last = max(place.segment for place, _ in later.values())
    of_last = {tail: told for tail, told in later.items() if told[0].segment == last}
    assert await look(hand, of_last) == 0, "what comes later is kept again"
    hand.crash()


async def test_a_full_disk_is_no_fault_of_the_log_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    for tell in ("warning", "info"):
        monkeypatch.setattr(spool_module.events, tell, lambda name, **fields: said.append(name))
    kind = Spooled(tmp_path)
    hand = Hand(kind).lead()
    kind.ops.full = True
    told = await some(hand, 20)
    assert hand.failures == []
    assert await look(hand, told) > 0
    assert [name for name in said if name != "spool_lacks"] == ["spool_failed"]
    kind.ops.full = False
    later = await some(hand, 20, base=20)
    assert [name for name in said if name != "spool_lacks"] == ["spool_failed", "spool_goes_on"]
    last = max(later.values())
    assert await look(hand, {tail: at for tail, at in later.items() if at == last}) == 0
    hand.crash()


async def test_a_stop_and_a_start_remove_what_is_not_needed(tmp_path: Path) -> None:
    """And never the spool of a broker that runs in the same directory."""
    kind = Spooled(tmp_path)
    first = Hand(kind).lead()
    await some(first, 3)
    spool = spool_of(first)
    spool._ops.close(spool._lock)  # as the end of its process does
    first.crash()
    second = first.again().lead()
    await some(second, 3)
    beside = Spool(tmp_path)
    beside.put(1, 0, [b"x"])
    paths = [spool_of(second).path, beside.path]
    assert names_in(tmp_path) == sorted(map(os.path.basename, paths))
    await second.close()
    assert names_in(tmp_path) == [os.path.basename(beside.path)]
    beside.close()
    assert names_in(tmp_path) == []


async def test_what_is_behind_the_disk_is_not_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with spool._guard:  # the disk stands still
        for index in range(40):
            spool.put_soon(1, index * 4_000_000, [bytes(4_000_000)])
        assert spool._given_bytes <= MOST_WAITING_BYTES
    spool.close()


# -- what is fetched ---------------------------------------------------------------------------------


STORMS = Faults(away=0.3, stale=0.2, lost=0.05, late=0.05, unanswered=0.1, dies=0.01, slow=0.1)


@pytest.mark.parametrize("seed", range(12))
async def test_storms_bring_back_what_was_appended(seed: int, tmp_path: Path) -> None:
    """Stale replicas, no answers, elections, claims between two batches; and a spool that loses this and that."""
    random = Random(seed)
    kind = Spooled(tmp_path)
    hand = Hand(kind).lead()
    kind.stream.random, kind.stream.faults = random, STORMS
    asked: list[int] = []
    read = kind.stream.read

    def noted(first: int, most_bytes: int, connection: int) -> object:
        asked.append(first)
        return read(first, most_bytes, connection)

    kind.stream.read = noted  # type: ignore[method-assign, assignment]
    told: Told = {}
    for _ in range(6):
        told |= {
            b"%d" % len(told) + tail: at
            for tail, at in (await some_named(hand, random, len(told))).items()
        }
        if random.random() < 0.3 and names_in(tmp_path):
            LOST[random.choice(list(LOST))](Path(spool_of(hand).path))
        upto = hand.log.oldest_upto
        if upto is not None and random.random() < 0.5:
            await hand.trim(upto)
            told = {tail: at for tail, at in told.items() if at[1] > upto}
        assert isinstance(hand.log, JetStreamLog)
        asked.clear()
        await look_named(hand, told)
        below = [first for first in asked if first < kind.stream.first]
        assert below == [], "what was given up is asked for"
    assert hand.failures == []
    hand.crash()


async def some_named(hand: Hand, random: Random, base: int) -> Told:
    """Append batches whose tails are all different."""
    told: Told = {}
    for index in range(random.randrange(3, 10)):
        tail = b":%d.%d" % (base, index) + random.randbytes(random.choice((10, 700)))
        number = await hand.append(b"%d" % base + tail)
        assert hand.log.last_place is not None
        told[tail] = hand.log.last_place, number
    return told


async def look_named(hand: Hand, told: Told) -> None:
    """Read each back alone."""
    for tail, (place, _) in told.items():
        try:
            found = hand.log.read(place.segment, [place.offset])
        except Elsewhere as elsewhere:
            found = await asyncio.wait_for(elsewhere.fetch(), 60)
        (one,) = found
        assert one is not None
        assert tail.endswith(bytes(one.tail).partition(b":")[2])


async def test_what_was_given_up_is_not_asked_for_any_more(tmp_path: Path) -> None:
    """Also by whoever began to ask before."""
    kind = Spooled(tmp_path)
    hand = Hand(kind).lead()
    told = await some(hand, 40)
    shutil.rmtree(spool_of(hand).path)
    place = min(place for place, _ in told.values())
    with pytest.raises(Elsewhere) as elsewhere:
        hand.log.read(place.segment, [place.offset])
    upto = hand.log.oldest_upto
    assert upto is not None
    kind.stream.faults = Faults(away=1.0)
    asking = asyncio.ensure_future(elsewhere.value.fetch())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not asking.done(), "it waits for the stream"
    kind.stream.faults = NO_FAULTS
    hand.log.back.stream = lambda: None  # type: ignore[attr-defined]
    await hand.trim(upto)
    with pytest.raises(GivenUp):
        await asyncio.wait_for(asking, 10)
    hand.crash()


async def test_bytes_that_are_damaged_in_the_stream_are_set_aside(tmp_path: Path) -> None:
    """Whatever replica is asked says the same, so the answer is that of a log of files."""
    kind = Spooled(tmp_path)
    hand = Hand(kind).lead()
    told = await some(hand, 3)
    shutil.rmtree(spool_of(hand).path)
    place, _ = list(told.values())[1]
    entries = kind.stream.entries
    index = next(i for i, each in enumerate(entries) if list(told)[1] in each.body)
    body = bytearray(entries[index].body)
    body[BATCH_HEADER_BYTES + 60] ^= 1
    entries[index] = entries[index]._replace(body=bytes(body))
    with pytest.raises(Elsewhere) as elsewhere:
        hand.log.read(place.segment, [place.offset])
    assert await elsewhere.value.fetch() == [None]
    hand.crash()


# -- a replay ----------------------------------------------------------------------------------------


async def test_a_replay_reads_one_record_from_the_spool_or_the_stream(tmp_path: Path) -> None:
    kind = Spooled(tmp_path)
    hand = Hand(kind).lead()
    await some(hand, 20)
    hand.crash()
    log = kind.open()
    found: list[Batch] = []
    for batch in log.recover():
        if batch is None:
            continue
        found.append(batch)
        if len(found) == 10:
            shutil.rmtree(log.back.spool.path)  # type: ignore[union-attr]
        for known in found:
            assert known.place is not None
            one = log.back.read_one(*known.place)
            assert bytes(one.tail) == bytes(known.records[0].tail)


async def test_a_replay_whose_bytes_were_trimmed_says_so(tmp_path: Path) -> None:
    kind = Spooled(tmp_path)
    hand = Hand(kind).lead()
    await some(hand, 20)
    hand.crash()
    log = kind.open()
    batches = [batch for batch in log.recover() if batch is not None]
    place = batches[0].place
    assert place is not None
    log.history.places.give_up(place.segment + 1_000)
    shutil.rmtree(log.back.spool.path)  # type: ignore[union-attr]
    with pytest.raises(BodyGone):
        log.back.read_one(*place)
