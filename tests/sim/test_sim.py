"""The short version of `make sim`: some worlds, some twice, and brokers that are broken on purpose."""

from __future__ import annotations

import pytest
from sim_canaries import DeafWriter, HastyWriter
from sim_world import World
from sim_writer import SimulatedWriter

SEED = 20_000


@pytest.mark.parametrize("seed", range(SEED, SEED + 12))
def test_nothing_is_violated_in_a_world(seed: int) -> None:
    """All invariants, at every step; alone: make sim SEED=... WORLDS=1 TRACE=1."""
    world = World(seed, borders=True, capabilities=None).run()
    assert world.checker.violations == []


@pytest.mark.parametrize("seed", range(SEED, SEED + 4))
def test_a_seed_is_one_history(seed: int) -> None:
    """Else a seed that fails could not be run again."""
    first, again = (World(seed, borders=True, capabilities=None).run() for _ in range(2))
    assert first.digest == again.digest


def caught(writer: type[SimulatedWriter], worlds: int, *kinds: str) -> list[str]:
    """Return what is found, of these kinds if any are named, in the first world in which something is."""
    for seed in range(worlds):
        violations = World(seed, writer=writer).run().checker.violations
        if found := [text for text in violations if not kinds or text.partition(":")[0] in kinds]:
            return found
    return []


def test_a_broker_that_confirms_before_the_sync_is_caught() -> None:
    """As a loss of what was published, or of an ack."""
    assert caught(HastyWriter, 40, "I1", "I7")


def test_a_broker_that_goes_on_after_a_failed_sync_is_caught() -> None:
    """A sync that failed says nothing of what is on the disk."""
    assert caught(DeafWriter, 80)
