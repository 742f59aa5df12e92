"""Worlds with retained logs, and logs that are broken on purpose: books that find nothing then prove nothing."""

from __future__ import annotations

import pytest
from sim_world import World

from minibrokerd.core.model.retained import Feeder
from minibrokerd.retained.files import RetainedFiles

SEED = 30_000


def world(seed: int) -> World:
    """Return a world with logs, and nothing else, that has run."""
    return World(seed, capabilities=("log",)).run()


def caught(worlds: int, *laws: str) -> list[str]:
    """Return what is found of these laws in the first world in which something is."""
    for seed in range(SEED, SEED + worlds):
        violations = world(seed).checker.violations
        if found := [text for text in violations if text.partition(":")[0] in laws]:
            return found
    return []


@pytest.mark.parametrize("seed", range(SEED, SEED + 6))
def test_nothing_is_violated_in_a_world_with_logs(seed: int) -> None:
    """Alone, with all else that a seed draws: make sim SEED=... WORLDS=1 TRACE=1."""
    assert world(seed).checker.violations == []


def test_a_world_with_logs_is_one_history() -> None:
    """Else a seed that fails could not be run again."""
    first, again = world(SEED), world(SEED)
    assert first.digest == again.digest
    assert first.logs.books.judged, "what came of logs was looked at"


def test_files_that_are_not_synced_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was acknowledged in the log is in files that a power cut takes."""
    monkeypatch.setattr(RetainedFiles, "sync", lambda files: None)
    assert caught(30, "O2")


def test_a_group_that_skips_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its position goes one message too far."""
    write = Feeder.write

    def one_further(feeder: Feeder, store: object) -> None:
        feeder.position += feeder.position % 5 == 4
        write(feeder, store)  # type: ignore[arg-type]

    monkeypatch.setattr(Feeder, "write", one_further)
    assert caught(10, "G1")


def test_a_group_that_forgets_its_position_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was acked and confirmed comes again after a start."""
    monkeypatch.setattr(Feeder, "write", lambda feeder, store: None)
    assert caught(30, "G1", "I7", "exception")
