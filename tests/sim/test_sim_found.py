"""Worlds that found a bug once: each is run again for ever."""

from __future__ import annotations

import pytest
from sim_world import World

FOUND = {
    51: "publishes that stored less than they might have used room up, until all of them waited for ever",
    500050: "a batch that ended in a hole of its file was taken for torn",
    500061: "the same",
    500041: "a note of a fail-stop that was torn kept the broker from starting",
}


@pytest.mark.parametrize("seed", FOUND)
def test_a_world_that_found_a_bug_finds_none_now(seed: int) -> None:
    """The bug is named in FOUND."""
    assert World(seed).run().checker.violations == [], FOUND[seed]
