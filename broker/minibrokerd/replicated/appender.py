"""What a broker that leads has yet to append: one after the other, each when the one before is stored for certain.

As long as all goes well no task has a part in it: an append is sent in the call that asks for it if nothing is in
flight, and the next one while the answer is read. What an answer means that is no ack is found out by a task.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from minibrokerd.replicated.leading import Fence, Overtaken
from minibrokerd.replicated.stream import Outcome

Parts = list[bytes]


class Appender:
    """The appends of one log; nothing is sent before `open`, and nothing after `is_closed` is set."""

    def __init__(
        self,
        epoch_record: Callable[[], bytes],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        on_stored: Callable[[int, Parts], object],
        on_failed: Callable[[BaseException], object],
    ) -> None:
        """`on_stored` hears where each append stands; `on_failed` of `Overtaken`, and of what a job raises."""
        self.is_closed = False
        self._epoch_record, self._spawn = epoch_record, spawn
        self._on_stored, self._on_failed = on_stored, on_failed
        self._fence: Fence | None = None
        self._jobs: deque[tuple[Parts, Callable[[int], object]]] = deque()
        self._is_busy = False  # with the first of them
        self._waits = False  # for the answer to what was sent
        self._has_answer = asyncio.Event()  # of which nobody makes anything: it is closed

    def open(self, fence: Fence) -> None:
        """Append by this fence, and begin with what there is."""
        self._fence = fence
        self._begin()

    @property
    def is_at_rest(self) -> bool:
        """Whether there is nothing to append, and a connection to do it by."""
        return self._fence is not None and not self._is_busy

    def put(self, parts: Parts, done: Callable[[int], object]) -> None:
        """Append these parts behind all that was put before; `done` follows, with their bytes."""
        self._jobs.append((parts, done))
        if not self._is_busy:
            self._begin()

    def _begin(self) -> None:
        fence = self._fence
        self._is_busy = fence is not None and bool(self._jobs) and not self.is_closed
        if fence is not None and self._is_busy:
            self._waits = True
            fence.begin(self._jobs[0][0], self._answered)

    def _answered(self, outcome: Outcome) -> None:
        assert self._fence is not None
        first, self._waits = self._fence.position + 1, False
        if self.is_closed:
            self._has_answer.set()
        elif self._fence.was_acked(outcome):
            self._stored(first)
        else:
            self._spawn(self._find_out(self._fence, outcome))

    async def _find_out(self, fence: Fence, outcome: Outcome) -> None:
        """Append what was not acked, however long it takes, or find out that it is there."""
        try:
            first = await fence.append(self._jobs[0][0], self._epoch_record, outcome)
        except Overtaken as overtaken:
            self._on_failed(overtaken)
            return
        self._stored(first)

    def _stored(self, first: int) -> None:
        parts, done = self._jobs.popleft()
        try:
            self._on_stored(first, parts)
            done(sum(map(len, parts)))
        except Exception as error:  # whoever reads answers would only log it
            self._on_failed(error)
            raise
        self._begin()

    async def answered(self) -> None:
        """Return when the append in flight, if there is one, has its answer; it is closed already."""
        if self._waits:
            await self._has_answer.wait()
