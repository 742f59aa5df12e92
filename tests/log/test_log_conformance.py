"""What every log does, of whatever kind: the same tests on each of them (decision 76)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from log_kinds import KINDS, Hand, InMemory, InStream, Kind, OnDisk

from minibrokerd.log.failures import Deposed, LogError


@pytest.fixture(params=KINDS)
async def kind(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Kind]:
    """An empty storage of each kind."""
    monkeypatch.setattr("minibrokerd.replicated.leading.SLOW_PAUSE_S", 0.05)
    kind = KINDS[request.param](tmp_path)
    yield kind
    await kind.end()


async def crashed(hand: Hand) -> None:
    """End a log, and let what its thread had still to say be heard."""
    hand.crash()
    for _ in range(3):
        await asyncio.sleep(0)


# -- appending --------------------------------------------------------------------------------------


async def test_what_was_synced_is_found_in_its_order_after_a_crash(kind: Kind) -> None:
    hand = Hand(kind).lead()
    numbers = [await hand.append(b"a", b"b"), await hand.append(b"c"), await hand.append(b"d")]
    assert hand.synced == numbers == sorted(set(numbers))
    hand.crash()
    again = hand.again().recover()
    assert again.tails == [b"a", b"b", b"c", b"d"]
    assert [len(batch.records) for batch in again.found] == [2, 1, 1]
    assert [batch.now_ms for batch in again.found] == [1_000] * 3
    again.crash()


async def test_an_empty_log_is_new(kind: Kind) -> None:
    hand = Hand(kind).recover()
    assert (hand.found, hand.log.clean) == ([], True)
    hand.crash()


async def test_one_batch_is_in_flight(kind: Kind) -> None:
    """Two in a chain would be no fence: that is the engine's mistake, and is not written."""
    hand = Hand(kind).lead()
    first = hand.batch(b"first")
    hand.hand(first)
    with pytest.raises(AssertionError):
        hand.hand(hand.batch(b"second"))
    await hand.told(first.number)
    assert (hand.synced, hand.failures) == ([first.number], [])
    hand.crash()
    again = hand.again().recover()
    assert again.tails == [b"first"]
    again.crash()


async def test_a_batch_under_way_at_a_crash_is_there_as_a_whole_or_not_at_all(kind: Kind) -> None:
    hand = Hand(kind).lead()
    await hand.append(b"before")
    hand.hand(hand.batch(b"x", b"y"))
    hand.crash()
    again = hand.again().recover()
    assert again.tails in ([b"before"], [b"before", b"x", b"y"])
    again.crash()


async def test_numbers_are_never_given_twice(kind: Kind) -> None:
    """Nor are those of the log's own batches: each start goes on behind what it found."""
    found: list[int] = []
    for life in range(4):
        hand = Hand(kind).lead()
        assert [batch.number for batch in hand.found] == sorted({b.number for b in hand.found})
        assert hand.log.next_number > max([0, *(batch.number for batch in hand.found)])
        found = [batch.number for batch in hand.found]
        await hand.append(b"%d" % life)
        await hand.close() if life % 2 else hand.crash()
    assert len(found) == 3


# -- leading ----------------------------------------------------------------------------------------


async def test_an_append_behind_another_batch_is_refused_and_that_is_final(kind: Kind) -> None:
    hand = Hand(kind).lead()
    last = await hand.append(b"kept")
    late = hand.batch(b"late")
    hand.hand(late, expected=last - 1)
    await hand.told(late.number)
    assert [isinstance(failure, Deposed) for failure in hand.failures] == [True]
    # The right number does not help any more: whoever was deposed has judged by what it knew.
    late = hand.batch(b"later")
    hand.hand(late, expected=last)
    await crashed(hand)
    assert (hand.synced, len(hand.failures)) == ([last], 1)
    again = hand.again().recover()
    assert again.tails == [b"kept"]
    again.crash()


async def test_each_leader_has_an_epoch_of_its_own(kind: Kind) -> None:
    epochs = []
    for life in range(4):
        hand = Hand(kind).lead()
        epochs.append(hand.log.epoch)
        if life == 1:
            await hand.append(b"some")
        await hand.close() if life == 2 else hand.crash()
    assert epochs == sorted(set(epochs))


async def test_a_second_leader_ends_the_first_or_is_kept_out(kind: Kind) -> None:
    first = Hand(kind).lead()
    await first.append(b"of the first")
    try:
        second = first.again().lead()
    except LogError:  # there is a lock, and the first one goes on
        await first.append(b"more")
        assert first.failures == []
        first.crash()
        again = first.again().recover()
        assert again.tails == [b"of the first", b"more"]
        again.crash()
        return
    assert second.tails == [b"of the first"]
    assert second.log.epoch > first.log.epoch
    await second.append(b"of the second")
    synced = list(first.synced)
    await first.append(b"late")
    assert first.synced == synced, "a deposed broker confirmed"
    assert isinstance(first.failures[0], Deposed)
    await second.append(b"and on")
    second.crash()
    again = second.again().recover()
    assert again.tails == [b"of the first", b"of the second", b"and on"]
    again.crash()


async def test_the_log_keeps_its_name(kind: Kind) -> None:
    hand = Hand(kind).lead()
    name = hand.log.store_id
    await hand.append(b"x")
    hand.crash()
    again = hand.again().recover()
    assert (again.log.store_id, len(name)) == (name, 16)
    again.crash()


# -- the end ----------------------------------------------------------------------------------------


async def test_a_log_that_was_closed_is_clean(kind: Kind) -> None:
    hand = Hand(kind).lead()
    await hand.append(b"x")
    await hand.close()
    again = hand.again().lead()
    assert (again.log.clean, again.tails) == (True, [b"x"])
    await again.append(b"y")
    again.crash()
    last = again.again().recover()
    assert last.tails == [b"x", b"y"]
    last.crash()


async def test_after_an_append_of_unknown_outcome_nothing_is_confirmed(kind: Kind) -> None:
    """It may be there or not, as a whole; that a log goes on behind it by itself is only right if it found out."""
    hand = Hand(kind).lead()
    before = await hand.append(b"before")
    if not hand.kind.fail_next(hand.log):
        assert not isinstance(kind, OnDisk | InStream), "something fails in these"
        return
    number = await hand.append(b"x", b"y")
    after = await hand.append(b"after") if not hand.failures else 0
    await crashed(hand)
    if hand.failures:
        assert (hand.synced, len(hand.failures)) == ([before], 1), "a fail is final"
    again = hand.again().recover()
    if after:
        assert hand.synced == [before, number, after]
        assert again.tails == [b"before", b"x", b"y", b"after"]
    else:
        assert again.tails in ([b"before"], [b"before", b"x", b"y"])
    again.crash()


# -- reading and trimming ---------------------------------------------------------------------------


async def test_what_has_a_place_can_be_read_back(kind: Kind) -> None:
    hand = Hand(kind).lead()
    places = []
    for name in (b"one", b"two", b"three"):
        batch = hand.batch(name, b"x" * 100, b"end of " + name)
        hand.hand(batch)
        await hand.told(batch.number)
        places.append((hand.log.last_place, batch))
    if places[0][0] is None:
        assert isinstance(kind, InMemory), "what is large leaves memory in all others"
        return
    for place, batch in places:
        assert place is not None
        sizes = [one.size_bytes for one in batch.records]
        offsets = [place.offset, place.offset + sizes[0], place.offset + sum(sizes[:2])]
        found = await hand.read(place.segment, offsets)
        assert [one and bytes(one.tail) for one in found] == [one.tail for one in batch.records]
    hand.crash()


async def test_what_was_found_at_a_start_has_its_place(kind: Kind) -> None:
    """And what was large went in parts, each of which is an entry of its own where the log is a stream."""
    hand = Hand(kind).lead()
    for size in (10, 2_000_000, 20):
        await hand.append(b"x" * size, b"behind %d" % size)
    hand.crash()
    again = hand.again().lead()
    await again.append(b"of the second")
    if again.found[0].place is None:
        assert isinstance(kind, InMemory), "what is large leaves memory in all others"
        return
    for batch in again.found:
        place = batch.place
        assert place is not None
        offsets = [place.offset, place.offset + batch.records[0].size_bytes]
        found = await again.read(place.segment, offsets)
        assert [one and bytes(one.tail) for one in found] == [one.tail for one in batch.records]
    again.crash()


async def test_a_trim_gives_up_nothing_that_is_newer(kind: Kind) -> None:
    hand = Hand(kind).lead()
    await hand.fill(12)
    upto = hand.log.oldest_upto
    if upto is None:
        assert isinstance(kind, InMemory), "all others are trimmed"
        assert hand.log.segment_bytes == 0, "a log that has segments has filled one"
        return
    newer = [number for number in hand.synced if number > upto]
    before = hand.log.disk_bytes
    await hand.trim(upto)
    assert hand.log.disk_bytes < before
    assert hand.log.oldest_upto is None or hand.log.oldest_upto > upto
    newer.append(await hand.append(b"behind it"))
    hand.crash()
    again = hand.again().lead()
    assert len(again.found) == len(newer) < 13
    assert again.tails[-1] == b"behind it"
    await again.append(b"and on")
    again.crash()


async def test_what_was_never_trimmed_is_all_there(kind: Kind) -> None:
    hand = Hand(kind).lead()
    await hand.fill(12)
    hand.crash()
    again = hand.again().recover()
    assert [tail[:4] for tail in again.tails] == [b"%04d" % index for index in range(12)]
    again.crash()
