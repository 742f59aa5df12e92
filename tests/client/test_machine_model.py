"""Random lives of the whole client: no call outlives its deadline, what is confirmed is stored once."""

from __future__ import annotations

import os

import pytest
from machine_world import MachineWorld

SEEDS = int(os.environ.get("MACHINE_SEEDS", "150"))
FIRST = int(os.environ.get("SEED", "0"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_a_life(seed: int) -> None:
    """MACHINE_SEEDS=100000 is the long run."""
    world = MachineWorld(seed)
    for _ in range(120):
        world.step()
    world.close()
