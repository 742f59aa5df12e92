"""The story in short: Flask and Django publish, workers work, everything dies once, and nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path
from random import SystemRandom

import pytest
from shoppers import Answer
from story_books import EPOCH_BITS, Kill, audited
from story_campaign import CHECKOUT

from story import told

SEED = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
REQUESTS = 60


@pytest.mark.timeout(480)
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


WORKER_DIES = Kill(3_000, frozenset({7, 9}))  # with the process of its handler
HANDLER_DIES = Kill(3_000, frozenset({9}))
BROKER_DIES = Kill(3_000, None, life=1)
LIFE = 1 << EPOCH_BITS


@pytest.mark.parametrize(
    ("first", "life", "kill", "is_reason"),
    [
        ("begun 1 9, done 2 9", 1, WORKER_DIES, True),
        # Acked in the broker's absence.
        ("begun 1 9, done 2 9, told 3 7", 1, WORKER_DIES, True),
        ("begun 1 9, done 2 9, told 3 7, safe 4000 7", 1, WORKER_DIES, True),
        ("begun 1 9, done 2 9, told 3 7, safe 2999 7", 1, WORKER_DIES, False),
        ("begun 1 9, done 2 9", 1, HANDLER_DIES, True),
        ("begun 1 9, done 2 9, told 4000 7", 1, HANDLER_DIES, True),
        ("begun 1 9, done 2 9, told 2999 7", 1, HANDLER_DIES, False),
        ("begun 3001 9, done 3002 9", 1, HANDLER_DIES, False),  # another one of that number
        ("begun 1 8, done 2 8", 1, WORKER_DIES, False),
        ("begun 1 9, done 2 9, told 3 7", 1, BROKER_DIES, True),
        ("begun 1 9, done 2 9, told 3 7, safe 4000 7", 1, BROKER_DIES, True),
        ("begun 1 9, done 2 9, told 3 7, safe 2999 7", 1, BROKER_DIES, False),
        ("begun 3001 9, done 3002 9, told 3003 7", 1, BROKER_DIES, True),  # handed out before
        ("begun 3001 9, done 3002 9, told 3003 7", 2, BROKER_DIES, False),
        ("begun 1 9, done 2 9, told 3 7, other 4 7", 1, WORKER_DIES, False),
    ],
)
def test_a_kill_is_a_reason_until_the_end_is_safe(
    tmp_path: Path, first: str, life: int, kill: Kill, is_reason: bool
) -> None:
    """Of `other`, another message of the same worker and queue, the ack is confirmed in time."""
    lines = []
    for verb, time_ns, pid in map(str.split, [*first.split(", "), "begun 8000 6", "done 8001 6"]):
        where = f"q 1-0 {LIFE * (life + (pid == '6'))} 1 {pid}"
        if verb == "other":
            where = f"q 1-1 {LIFE * life} 1 {pid}"
            lines += [f"{each} {time_ns} {where}" for each in ("begun", "done", "told", "safe")]
        else:
            lines.append(f"{verb} {time_ns} {where}")
    (tmp_path / "ledger").write_text("\n".join(lines))
    faults = audited(tmp_path / "ledger", [kill], [Answer(0, "q", "1-0", 0.1)]).faults
    assert [fault.partition(":")[0] for fault in faults] == (
        [] if is_reason else ["done again without a reason"]
    )
