"""A few rounds of `make backups`: under load, with something killed at a random moment."""

from __future__ import annotations

import os
from pathlib import Path
from random import SystemRandom

import pytest
from backup_campaign import run_campaign

from support.processes import DEADLINE_S

ROUNDS = int(os.environ.get("ROUNDS") or 2)
SEED = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))


@pytest.mark.timeout(2 * DEADLINE_S + 20 * ROUNDS)
def test_each_restored_copy_has_what_was_confirmed_and_nothing_that_was_acked(
    tmp_path: Path,
) -> None:
    """`make backups ROUNDS=20 SEED=...` is the same with more rounds."""
    done = run_campaign(tmp_path, ROUNDS, SEED, budget_s=600)
    faults = [fault for each in done for fault in each.faults]
    assert not faults, f"SEED={SEED}"
    assert len(done) == ROUNDS
    assert any(each.confirmed and each.acked and each.found for each in done)
