"""Random lives of the whole client against the real core: what each of them must keep is in machine_world.py."""

from __future__ import annotations

import os

import pytest
from machine_world import MachineWorld

from minibroker.contract.errors import OutcomeUnknown

SEEDS = int(os.environ.get("MACHINE_SEEDS", "120"))
FIRST = int(os.environ.get("SEED", "0"))
STEPS = 120


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_a_life(seed: int) -> None:
    """MACHINE_SEEDS=100000 is the long run."""
    world = MachineWorld(seed)
    for _ in range(STEPS):
        world.step()
    world.close()


def test_a_publish_whose_deadline_passes_while_the_connection_comes_back_hears_so_at_once() -> None:
    """Its frame is given up there: were it not told, and the connection closed, its caller would wait for ever."""
    world = MachineWorld(1)
    world._wait()
    group = world.machine.open_group(("a", 500), world.now)
    waiter = world.callers.wait("publish", group.deadline_ms, (b"x",)).waiter
    group.add(waiter, b"", b"x", 0, b"", 0)
    world.settle_down()
    world._ended()
    while not world.dials:
        world.pass_ms(8)
        world.settle_down()
    world._connect()
    world.now = group.deadline_ms
    while not world.machine.session.is_open:
        world.settle_down()
        world.move()
    assert isinstance(waiter.exception(), OutcomeUnknown)
