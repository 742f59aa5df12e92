"""What `Queue.join` waits for and how often it looks; the looks and the waits are the shell's."""

from __future__ import annotations

from typing import Any, Final

from minibroker.contract.errors import Timeout
from minibroker.session.spans import Span, milliseconds

MOST_MS: Final = 366 * 86_400_000
# Between two looks; doubles while nothing changes, so that many who wait are no load.
FIRST_S: Final = 0.005
LONGEST_S: Final = 0.5
OPEN: Final = ("ready", "held", "begun")


class Joining:
    """One call of `Queue.join`: a look at the counters, a pause, the next look, until nothing is left."""

    def __init__(self, name: str, timeout: Span | None, delayed: bool, now_s: float) -> None:
        self._name = name
        self._timeout = timeout
        self._states = (*OPEN, "delayed") if delayed else OPEN
        self._end_s = None
        if timeout is not None:
            self._end_s = now_s + milliseconds("timeout", timeout, MOST_MS) / 1000
        self._left: dict[str, int] = {}
        self._wait_s = FIRST_S

    def left_s(self, now_s: float) -> float | None:
        """Return how many seconds of the time-out are left; None: there is none, but that of a look."""
        return None if self._end_s is None else max(0.0, self._end_s - now_s)

    def is_done(self, stats: dict[str, Any]) -> bool:
        """Return whether nothing is left, by what a look has shown."""
        counters = stats["queues"][self._name]
        left = {state: counters[state] for state in self._states if counters[state]}
        if lag := counters.get("group_of", {}).get("lag"):
            left["behind"] = lag  # of a group: it was not fed yet
        self._wait_s = FIRST_S if left != self._left else min(2 * self._wait_s, LONGEST_S)
        self._left = left
        return not left

    def pause_s(self, left_s: float | None) -> float:
        """Return how long to wait before the next look."""
        return self._wait_s if left_s is None else min(self._wait_s, left_s)

    def late(self, error: Timeout) -> Timeout:
        """Return what to raise for a look that had no answer within what was left; it says what is left to do."""
        shown = ", ".join(f"{count} {state}" for state, count in self._left.items()) or error
        return Timeout(f"{self._name} is not done after {self._timeout} s: {shown}")
