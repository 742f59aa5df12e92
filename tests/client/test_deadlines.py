"""The table of deadlines, with a clock that the test moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minibroker.session.deadlines import SLOT_MS, Deadlines
from minibroker.session.timers import NEVER_MS, Timers


def test_items_are_due_in_order_and_once() -> None:
    table: Deadlines[str] = Deadlines()
    table.add("late", 1_000)
    table.add("early", 100)
    assert table.next_ms() is not None
    assert table.pop_due(50) == []
    assert table.pop_due(2_000) == ["early", "late"]
    assert table.pop_due(2_000) == []
    assert table.next_ms() is None


def test_what_was_taken_out_arms_no_timer() -> None:
    table: Deadlines[str] = Deadlines()
    slot = table.add("a", 100)
    table.discard("a", slot)
    table.discard("a", slot)
    assert table.next_ms() is None
    assert table.pop_due(1_000) == []


@given(st.lists(st.integers(0, 10_000)), st.integers(0, 10_000))
def test_nothing_is_early_and_nothing_more_than_a_slot_late(times: list[int], now_ms: int) -> None:
    table: Deadlines[tuple[int, int]] = Deadlines()
    for number, when_ms in enumerate(times):
        table.add((when_ms, number), when_ms)
    due = {when_ms for when_ms, _ in table.pop_due(now_ms)}
    assert all(when_ms <= now_ms for when_ms in due)
    assert all(when_ms in due for when_ms in times if when_ms + SLOT_MS <= now_ms)


def test_an_entry_that_is_due_and_adds_another_delays_none_that_waits() -> None:
    timers = Timers()
    timers.at(0, "beat")
    timers.at(500, "a call's deadline")
    assert timers.pop_due(SLOT_MS) == ["beat"]
    timers.at(15_000, "next beat")
    assert 500 <= timers.wake_ms < 500 + SLOT_MS


def test_nothing_is_looked_at_too_late_and_nothing_at_all_when_nothing_is_due() -> None:
    timers = Timers()
    slot = timers.at(80, "gone")
    assert timers.wake_ms <= 80
    timers.discard("gone", slot)
    assert timers.pop_due(80) == []
    assert timers.wake_ms == NEVER_MS
