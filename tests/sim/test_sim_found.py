"""Worlds that found a bug once: each is run again for ever."""

from __future__ import annotations

import pytest
from sim_world import World

FOUND = {
    51: "publishes that stored less than they might have used room up, until all of them waited for ever",
    500050: "a batch that ended in a hole of its file was taken for torn",
    500061: "the same",
    500041: "a note of a fail-stop that was torn kept the broker from starting",
    1040: "a lost sector was read again for ever, and its queue stood still",
    1094: "a start read the same stretch of a queue twice",
    2227: "a publish that came again was refused for want of memory, though it was stored",
    2125: "a queue of which a cold message was set aside last stood in its turn twice, and the loop never ended",
    2579: "the same",
    11508: "a footer whose sync had failed was taken for a clean stop",
    7102367: "the same",
    7106095: "the same",
    8203959: "the same",
    9307: "a message that stood before an earlier one was taken for damaged, because reads went forward only",
    20270740: "what had been delayed stood, after a start, in front of cold messages that were ready before it",
    25309: "a fresh message was overtaken, because one that had come back was in its delivery",
    40001240: "the outcomes of a client that was away were forgotten at a start, for the wall clock had been set",
}


BORDERS = {
    80002298: "a consume that opened over a reconnect was asked twice, and its withdrawal ended only one",
}


@pytest.mark.parametrize("seed", BORDERS)
def test_a_world_of_impatient_clients_finds_none_now(seed: int) -> None:
    """The bug is named in BORDERS."""
    assert World(seed, borders=True).run().checker.violations == [], BORDERS[seed]


@pytest.mark.parametrize("seed", FOUND)
def test_a_world_that_found_a_bug_finds_none_now(seed: int) -> None:
    """The bug is named in FOUND."""
    assert World(seed, punctual=True).run().checker.violations == [], FOUND[seed]
