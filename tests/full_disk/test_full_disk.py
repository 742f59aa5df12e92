"""One short cycle of `make full-disk`: acks, restarts and deliveries with no byte free."""

from __future__ import annotations

import os
from pathlib import Path
from random import SystemRandom

import pytest
from disk_campaign import run_full_disk
from small_disk import SmallDisk

ACKS = int(os.environ.get("ACKS") or 1_500)
SEED = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))


def test_acks_and_restarts_work_at_zero_bytes_free(tmp_path: Path) -> None:
    """Nothing is lost, and publishes go on within two seconds after space is back."""
    probe = tmp_path / "probe"
    try:
        SmallDisk(probe, 1 << 20).close()
    except (FileNotFoundError, PermissionError) as error:
        pytest.skip(f"{error}; `make full-disk` does it in a user namespace")
    figures = run_full_disk(tmp_path, SEED, budget_s=0, acks=ACKS)
    assert figures.cycles == 1
    assert figures.acks
    assert not figures.lost
