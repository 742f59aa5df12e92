"""A sample of `make faults`: reliability of the real process when its system calls fail, or kill it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import SystemRandom

import pytest
from fault_campaign import FaultCampaign, fresh_scenario
from saboteur import HOW_TO_INSTALL

BUDGET_S = float(os.environ.get("BUDGET") or 8)
SEED = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))


@pytest.mark.skipif(shutil.which("strace") is None, reason=HOW_TO_INSTALL)
@pytest.mark.timeout(600 + 2 * BUDGET_S)
def test_a_failed_call_stops_the_broker_and_loses_nothing(tmp_path: Path) -> None:
    """Each run: one call fails or kills, then the next start has all that was confirmed, and nothing twice."""
    campaign = FaultCampaign(tmp_path, SEED)
    fresh = fresh_scenario()
    figures = campaign.run([fresh, campaign.failed(fresh)], BUDGET_S)
    assert not figures.violations, f"SEED={SEED}\n" + "\n".join(figures.violations)
    assert figures.outcomes["stopped"] + figures.outcomes["killed"], f"no fault happened: {figures}"
    assert figures.confirmed
