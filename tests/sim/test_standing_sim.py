"""The short version of `make sim WITH=standby`: brokers that stand by take over, and careless ones are seen."""

from __future__ import annotations

import pytest
from sim_stream_broker import Subject
from standing_sim import StandingWorld

SEED = 50_000


def world(seed: int) -> StandingWorld:
    """Return a world with what its seed draws, that has run."""
    made = StandingWorld(seed, borders=True, capabilities=None)
    made.run()
    return made


@pytest.mark.parametrize("seed", range(SEED, SEED + 4))
def test_nothing_is_violated_where_others_stand_by(seed: int) -> None:
    """All laws; alone: make sim WITH=standby SEED=... WORLDS=1 TRACE=1."""
    made = world(seed)
    assert made.checker.violations == []
    assert made.met["takeovers"]


def test_a_world_in_which_others_stand_by_is_one_history() -> None:
    """Else a seed that fails could not be run again."""
    first, again = world(SEED), world(SEED)
    assert first.digest == again.digest
    assert first.stream.entries == again.stream.entries


def test_one_that_does_not_replay_all_it_follows_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others: make planted."""
    replay = Subject.replay

    def careless(subject: Subject, batch: object) -> None:
        if batch.number % 5:  # type: ignore[attr-defined]
            replay(subject, batch)

    monkeypatch.setattr(Subject, "replay", careless)
    found = (text for seed in range(SEED, SEED + 6) for text in world(seed).checker.violations)
    assert any(text.startswith(("T1", "exception")) for text in found)
