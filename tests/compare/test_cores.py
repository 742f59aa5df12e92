"""`benchmarks.cores`, where the answer can be said without it."""

from __future__ import annotations

import pytest
from benchmarks.cores import NETWORK_US, Costs, messages_per_s

COSTS = Costs(messages=10, turn=10, read=20, core=30, answer=40, close=5, write=7, sync=88, hop=3)


@pytest.mark.parametrize(
    ("fronts", "us"),
    [
        # Turn with the frame, turn that closes, the writer, the disk, turn that hears of it, turn that answers.
        (0, (10 + 20 + 30) + (10 + 5) + 7 + 88 + 10 + (10 + 40) + NETWORK_US),
        # A turn and a hop more on the way in, and on the way out.
        (
            2,
            (10 + 20 + 3)
            + (10 + 3 + 30)
            + (10 + 5)
            + 7
            + 88
            + 10
            + (10 + 3)
            + (10 + 3 + 40)
            + NETWORK_US,
        ),
    ],
)
def test_a_client_alone_waits_for_each_part_once(fronts: int, us: float) -> None:
    """Nothing overlaps with anything, and each frame has a sync."""
    rate, of_a_sync = messages_per_s(COSTS, 4, 1, fronts=fronts)
    assert rate == pytest.approx(1e6 / us * COSTS.messages, rel=0.001)
    assert of_a_sync == COSTS.messages


def test_no_more_is_done_than_a_core_can() -> None:
    """Many clients elsewhere keep one core busy; of their frames each batch has as many as came meanwhile."""
    rate, of_a_sync = messages_per_s(COSTS, 1, 200)
    limit = 1e6 / (COSTS.read + COSTS.core + COSTS.answer) * COSTS.messages
    assert rate == pytest.approx(limit, rel=0.1)
    assert of_a_sync > 50 * COSTS.messages


def test_two_shards_are_twice_as_fast_on_two_cores_and_not_on_one() -> None:
    """As long as each has clients enough to share its syncs."""
    one, _ = messages_per_s(COSTS, 2, 200)
    two, _ = messages_per_s(COSTS, 2, 200, shards=2)
    two_on_one_core, _ = messages_per_s(COSTS, 1, 200, shards=2)
    assert two == pytest.approx(2 * one, rel=0.1)
    assert two_on_one_core == pytest.approx(one, rel=0.1)
