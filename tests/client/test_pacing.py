"""`prefetch="auto"` in virtual time: what a consumer has in hand, by its speed and the way to the server."""

from __future__ import annotations

import heapq
from collections import deque

import pytest

import minibroker
from minibroker.session.pacing import GROWTH, HAND_MS, Pacing, prefetch_of


def settles(
    each_ms: float,
    *,
    way_ms: float = 0.5,
    slots: int = 1,
    seconds: float = 3.0,
    every_ms: float = 0.0,
    then_ms: float = 0.0,
) -> tuple[int, int]:
    """Return (prefetch at the end, messages worked off) of a consumer: a small simulation of both sides.

    Messages take `each_ms`, and `then_ms` after the first second; the queue is never empty, or gets one each
    `every_ms`. The server refills when half of the prefetch is settled.
    """
    prefetch, pacing = prefetch_of("auto", slots)
    assert pacing is not None
    pacing.answered(round(way_ms))
    now_ms, unsettled, settled, waits_since = 0.0, 0, 0, 0.0
    buffer: deque[None] = deque()
    idle = slots
    arriving: deque[tuple[float, int]] = deque()
    running: list[float] = []
    arrived = 0
    while now_ms < seconds * 1_000:
        there = 10**9 if not every_ms else int(now_ms / every_ms) + 1 - arrived
        free = min(prefetch - unsettled, there)
        if free >= max(1, prefetch // 2) or (free and not running):
            arriving.append((now_ms + way_ms, free))
            unsettled, arrived = unsettled + free, arrived + free
        moments = [*(at for at, _ in list(arriving)[:1]), *running[:1]]
        now_ms = min(moments) if moments else now_ms + (every_ms or 1)
        while running and running[0] <= now_ms:
            heapq.heappop(running)
            idle, settled, unsettled = idle + 1, settled + 1, unsettled - 1
            if idle == 1 and not buffer:
                waits_since = now_ms
        while arriving and arriving[0][0] <= now_ms:
            _, count = arriving.popleft()
            waiting = 0 if buffer else idle
            waits_ms = int(now_ms) - int(waits_since) if waiting else 0
            prefetch = pacing.delivered(
                int(now_ms), count, len(buffer), prefetch, waiting, waits_ms
            )
            buffer.extend([None] * count)
        while idle and buffer:
            buffer.popleft()
            idle -= 1
            took_ms = then_ms if then_ms and now_ms > 1_000 else each_ms
            heapq.heappush(running, now_ms + took_ms)
    return prefetch, settled


@pytest.mark.parametrize("each_ms", [0.02, 0.1, 0.5, 2.0, 5.0])
def test_about_ten_ms_of_work_are_in_hand(each_ms: float) -> None:
    prefetch, settled = settles(each_ms)
    assert HAND_MS / 2 <= prefetch * each_ms <= HAND_MS * 2
    assert settled >= 0.85 * 3_000 / each_ms  # the network costs hardly anything


@pytest.mark.parametrize("each_ms", [15.0, 200.0, 700.0])
def test_long_work_has_nothing_waiting_behind_it(each_ms: float) -> None:
    assert settles(each_ms)[0] == 1


def test_each_slot_has_one_and_what_they_do_in_ten_ms() -> None:
    assert settles(500.0, slots=8)[0] == 8
    assert 8 + 5 <= settles(8.0, slots=8)[0] <= 8 + 20


def test_a_far_server_is_not_waited_for() -> None:
    prefetch, settled = settles(1.0, way_ms=40.0, seconds=6)
    assert settled >= 0.8 * 6_000
    assert prefetch <= 200


def test_a_queue_that_is_mostly_empty_lets_nobody_hoard() -> None:
    assert settles(100.0, every_ms=1_000, seconds=30)[0] == 1
    assert settles(2.0, every_ms=20, seconds=10)[0] <= 10


def test_who_slows_down_has_less_in_hand_with_the_next_delivery() -> None:
    assert settles(0.05, seconds=0.9)[0] >= 150
    assert settles(0.05, then_ms=20.0, seconds=9)[0] <= 3


def test_what_the_server_asked_back_was_not_worked_off() -> None:
    """All four of the first delivery left the buffer, and nothing is known of how long one takes."""
    pacing = Pacing()
    pacing.answered(0)
    assert pacing.delivered(0, 4, 0, 4, 0, 0) == 4
    pacing.gave_back(4)
    assert pacing.delivered(20, 4, 0, 4, 0, 0) == 4


def test_the_time_in_which_nothing_came_is_no_work() -> None:
    """One message in 100 ms, of which somebody waited for 99: it takes a millisecond, so more are wanted."""
    pacing = Pacing()
    pacing.answered(0)
    assert pacing.delivered(0, 1, 0, 1, 0, 0) == 1
    assert pacing.delivered(100, 1, 0, 1, 1, 99) == GROWTH


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("Auto", TypeError),
        (None, TypeError),
        (True, TypeError),
        (0, minibroker.BadValue),
        (10**6, minibroker.BadValue),
    ],
)
def test_what_is_no_prefetch_is_refused(wrong: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="prefetch"):
        prefetch_of(wrong)  # type: ignore[arg-type]
