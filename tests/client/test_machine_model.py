"""Random lives of the whole client against the real core: what each of them must keep is in machine_world.py."""

from __future__ import annotations

import os

import pytest
from machine_world import MachineWorld

SEEDS = int(os.environ.get("MACHINE_SEEDS", "120"))
FIRST = int(os.environ.get("SEED", "0"))
STEPS = 120

FOUND = {
    47: "a receive was open when the client closed, and its answer stayed begun until the lease ended",
    254: "a publish whose deadline passed while the connection came back waited for ever, if it was closed then",
    372: "a settlement that was not written when the client closed was awaited for ever",
}


def live(seed: int) -> None:
    """Run one life, and judge it."""
    world = MachineWorld(seed)
    for _ in range(STEPS):
        world.step()
    world.close()


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_a_life(seed: int) -> None:
    """MACHINE_SEEDS=100000 is the long run."""
    live(seed)


@pytest.mark.parametrize("seed", FOUND)
def test_a_life_that_found_a_bug_finds_none_now(seed: int) -> None:
    """The bug is named in FOUND."""
    live(seed)
