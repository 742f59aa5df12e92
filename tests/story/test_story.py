"""The story in short: Flask and Django publish, workers work, everything dies once, and nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path
from random import SystemRandom

import pytest
from shoppers import Answer
from story_books import Kill, audited
from story_campaign import CHECKOUT

from story import told

SEED = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
REQUESTS = 60


@pytest.mark.timeout(240)
def test_every_answered_request_is_worked_off(tmp_path: Path) -> None:
    """`make story` is the same with 500 requests, out of the wheel, again and again."""
    outcome = told(tmp_path, SEED, REQUESTS, CHECKOUT)
    assert not outcome.faults, f"SEED={SEED}\n{outcome}\n{outcome.faults}"
    assert not outcome.failed, f"SEED={SEED}\n{outcome}\n{outcome.failed}"
    assert (outcome.requests, outcome.lost, outcome.kills) == (REQUESTS, 0, 3)
    assert outcome.duplicates <= outcome.running_at_kills


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("begun 1 q 1-0 5 1 9\ndone 2 q 1-0 5 1 9\n", ""),
        ("begun 1 q 1-0 5 1 9\nbegun 5 q 1-0 6 2 9\ndone 6 q 1-0 6 2 9\n", ""),
        ("begun 1 q 1-0 5 1 9\n", "answered and never done"),
        (
            "begun 1 q 1-0 5 1 8\ndone 2 q 1-0 5 1 8\nbegun 5 q 1-0 6 1 9\ndone 6 q 1-0 6 1 9\n",
            "done again without a reason",
        ),
        (
            "begun 1 q 1-0 5 1 9\nbegun 5 q 1-0 4 2 8\ndone 6 q 1-0 4 2 8\n",
            "a token that did not grow",
        ),
        (
            "begun 1 q 1-0 5 1 9\nbegun 5 q 1-0 6 3 9\ndone 6 q 1-0 6 3 9\n",
            "charged for no death",
        ),
        ("begun 1 q 1-0 5 1 9\nnorow 1 q 1-0 5 1 9\ndone 2 q 1-0 5 1 9\n", "before its commit"),
    ],
)
def test_the_books_find_what_is_wrong(tmp_path: Path, lines: str, fault: str) -> None:
    """Each kind of fault alone; at 3 the worker with the process 9 was killed."""
    (tmp_path / "ledger").write_text(lines)
    kills = [Kill(3, frozenset({9}))]
    faults = audited(tmp_path / "ledger", kills, [Answer(0, "q", "1-0", 0.1)]).faults
    assert len(faults) == bool(fault), faults
    assert fault in "".join(faults)
