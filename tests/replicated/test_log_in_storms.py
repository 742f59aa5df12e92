"""The log in a simulated stream that is as bad as it can be: brokers in a row, and one that is still there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest
from log_kinds import Hand, InStream
from log_world import NOW_MS, UNIX_MS
from sim_stream import SimStream
from stream_world import MOST

from minibrokerd.log.failures import Deposed
from minibrokerd.log.format import Kind
from minibrokerd.replicated.entries import Assembly, statement_of
from minibrokerd.replicated.failures import Trimmed

LIVES = 6
SEEDS = range(1, 9)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are for servers that take time; these take ticks."""
    for name in ("PAUSE_S", "SLOW_PAUSE_S", "MOST_PAUSE_S"):
        monkeypatch.setattr(f"minibrokerd.replicated.leading.{name}", 0.0)


async def life(hand: Hand, random: Random, number: int) -> dict[bytes, int]:
    """Append some; return what was confirmed and not trimmed since, each with the number of its batch."""
    confirmed: dict[bytes, int] = {}
    for index in range(random.randrange(3, 12)):
        tail = b"%d.%d" % (number, index)
        before = len(hand.synced)
        await hand.append(tail, bytes(random.choice((10, 900))))
        if hand.failures:
            break
        assert len(hand.synced) == before + 1
        confirmed[tail] = hand.synced[-1]
        if (upto := hand.log.oldest_upto) is not None and random.random() < 0.5:
            hand.trimmed = upto
            if random.random() < 0.5:  # it ends in the middle of that
                hand.log.trim(upto, NOW_MS, UNIX_MS, lambda: None)
                for _ in range(random.randrange(6)):
                    await asyncio.sleep(0)
                break
            await hand.trim(upto)
    return confirmed


def watched(stream: SimStream) -> None:
    """Have it asserted of each purge that the stream has a checkpoint which says that the log starts there."""
    purge = stream.purge

    def purge_what_is_not_needed(below: int) -> None:
        stated, assembly = set(), Assembly()
        for entry in stream.entries:
            whole = assembly.add(entry)
            if whole is not None and whole.header.kind is not Kind.DATA:
                stated.add(statement_of(whole).log_start)
        assert below in stated, "it was purged before the checkpoint was stored"
        purge(below)

    stream.purge = purge_what_is_not_needed  # type: ignore[method-assign]


def names(hand: Hand) -> list[bytes]:
    """Return what names the batches that were found."""
    return [bytes(batch.records[0].tail) for batch in hand.found]


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_confirmed_is_found_by_whoever_leads_next(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    kind = InStream(tmp_path)
    kind.stream.random, kind.stream.faults = random, MOST
    watched(kind.stream)
    confirmed: dict[bytes, int] = {}
    epochs: list[int] = []
    count = 0
    before: Hand | None = None
    for number in range(LIVES):
        hand = Hand(kind)
        try:
            hand.lead()
        except Trimmed:
            continue
        found = names(hand)
        assert len(set(found)) == len(found), "a batch is there twice"
        assert [name for name in found if name in confirmed] == list(confirmed)
        epochs.append(hand.log.epoch)
        if before is not None:  # it has not died, and does not know yet
            late = await life(before, random, 100 + number)
            assert late == {}, "a deposed broker confirmed"
            assert [isinstance(failure, Deposed) for failure in before.failures] == [True]
            before.crash()
            before = None
        confirmed |= await life(hand, random, number)
        assert hand.failures == []
        count += len(hand.synced)
        confirmed = {name: at for name, at in confirmed.items() if at > hand.trimmed}
        if random.random() < 0.5:
            before = hand
        else:
            hand.crash()
    assert epochs == sorted(set(epochs))
    assert count > LIVES
    assert kind.stream.jumps == 0
    if before is not None:
        before.crash()
    await asyncio.sleep(0)
