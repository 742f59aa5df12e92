"""The timer wheel alone, against a sorted list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minibrokerd.core.model.wheel import TICK_MS, Timer, Wheel

LONGEST_MS = 2**53
durations = st.one_of(
    st.integers(0, 64),
    st.integers(0, 300_000),
    st.integers(0, LONGEST_MS),
    # around the places where a timer changes its level
    st.builds(
        lambda level, by: max(TICK_MS * 256**level + by, 0), st.integers(0, 5), st.integers(-9, 9)
    ),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), durations),
        st.tuples(st.just("again"), st.integers(0, 50), durations),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("pass"), durations),
        st.tuples(st.just("budget"), durations, st.integers(1, 3)),
        st.tuples(st.just("next")),
        st.tuples(st.just("ask")),
    ),
    max_size=60,
)


class Reference:
    """Deadlines in a dict, and the wheel beside it."""

    def __init__(self, start_ms: int) -> None:
        self.now_ms = start_ms
        self.wheel = Wheel(start_ms)
        self.timers: list[Timer] = []
        self.deadlines: dict[Timer, int] = {}

    def set(self, duration_ms: int) -> None:
        self.timers.append(Timer(None))
        self.again(len(self.timers) - 1, duration_ms)

    def again(self, index: int, duration_ms: int) -> None:
        if self.timers:
            timer = self.timers[index % len(self.timers)]
            self.deadlines[timer] = self.now_ms + duration_ms
            self.wheel.schedule(timer, self.deadlines[timer])

    def cancel(self, index: int) -> None:
        if self.timers:
            timer = self.timers[index % len(self.timers)]
            self.deadlines.pop(timer, None)
            self.wheel.cancel(timer)

    def budget(self, duration_ms: int, most: int) -> None:
        """Let time pass and fire a few; what is left is due at once."""
        self.now_ms += duration_ms
        fired = self.wheel.advance(self.now_ms, most)
        assert len(fired) <= most
        self._check(fired)
        if any(self._is_due(timer) for timer in self.deadlines):
            assert len(fired) == most
            next_ms = self.wheel.next_deadline_ms()
            assert next_ms is not None
            assert next_ms <= self.now_ms

    def passes(self, duration_ms: int) -> None:
        """Let time pass and fire everything that is due."""
        self.now_ms += duration_ms
        self._check(self.wheel.advance(self.now_ms, 10**6))
        assert not any(self._is_due(timer) for timer in self.deadlines)

    def next(self) -> None:
        """Sleep as long as the wheel says, until something fires: a few turns at most."""
        before = len(self.deadlines)
        for _ in range(12):
            next_ms = self.wheel.next_deadline_ms()
            assert (next_ms is None) == (not self.deadlines)
            if next_ms is None or len(self.deadlines) < before:
                return
            assert next_ms < min(self.deadlines.values()) + 2 * TICK_MS
            self.passes(max(next_ms - self.now_ms, 0))
        assert len(self.deadlines) < before, "it woke up for nothing again and again"

    def ask(self) -> None:
        """The answer is never later than the first deadline, whatever came since it was asked for last."""
        next_ms = self.wheel.next_deadline_ms()
        assert (next_ms is None) == (not self.deadlines)
        if next_ms is not None:
            assert next_ms <= min(timer.tick for timer in self.deadlines) * TICK_MS

    def _is_due(self, timer: Timer) -> bool:
        # A tick that was over when the timer was set is the one that comes next.
        return self.deadlines[timer] + TICK_MS <= self.now_ms

    def _check(self, fired: list[Timer]) -> None:
        ticks = [timer.tick for timer in fired]
        assert ticks == sorted(ticks)
        for timer in fired:
            assert self.deadlines.pop(timer) <= self.now_ms, "early"
            assert not timer.armed


@given(st.integers(0, LONGEST_MS), steps)
def test_nothing_fires_early_and_nothing_more_than_a_tick_late(
    start_ms: int, script: list[tuple[object, ...]]
) -> None:
    reference = Reference(start_ms)
    for name, *arguments in script:
        method = "passes" if name == "pass" else str(name)
        getattr(reference, method)(*arguments)
    reference.passes(2 * LONGEST_MS)
    assert not reference.deadlines


def test_a_timer_may_be_set_again_into_the_slot_that_fires() -> None:
    wheel = Wheel(0)
    timers = [Timer(i) for i in range(10)]
    for timer in timers:
        wheel.schedule(timer, 8)
    for timer in wheel.advance(8, 100):
        wheel.schedule(timer, 8)
    assert wheel.advance(8, 100) == []
    assert wheel.advance(16, 100) == timers


def test_a_wheel_that_was_emptied_by_cancels_says_so() -> None:
    wheel = Wheel(5)
    timers = [Timer(None) for _ in range(100)]
    for index, timer in enumerate(timers):
        wheel.schedule(timer, 5 + 37**index % LONGEST_MS)
    for timer in timers:
        wheel.cancel(timer)
        wheel.cancel(timer)
    assert wheel.next_deadline_ms() is None
