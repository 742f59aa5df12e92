"""What one turn of the loop does for strangers: peers that have not logged in, who come in crowds.

The loop hands over what has come from all sockets since its last turn. To hear a thousand strangers at once and
refuse them took 60 to 90 ms, and those who have logged in wait for the end of a turn. So it is counted: whoever
finds a turn full is heard in one of the next, in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from minibroker.contract.limits import STRANGERS_PER_TURN
from minibrokerd.process.logs import events

# A signature takes up to a millisecond, as long as all that a turn has for others.
HANDSHAKE: Final = STRANGERS_PER_TURN


class Turns:
    """Counts what a turn of `loop` does for strangers, in words of them that are heard."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left = STRANGERS_PER_TURN  # of this turn
        self._waiting: deque[tuple[Callable[[], object], int]] = deque()

    def take(self, hear: Callable[[], object], words: int = 1) -> None:
        """Call `hear`, now or in the first turn that has room for it. A turn that has any left has enough."""
        if self._left <= 0:
            self._waiting.append((hear, words))
            return
        if self._left == STRANGERS_PER_TURN:
            self._loop.call_soon(self._next)
        self._left -= words
        hear()

    def _next(self) -> None:
        self._left = STRANGERS_PER_TURN
        while self._waiting and self._left > 0:
            try:
                self.take(*self._waiting.popleft())
            except Exception as error:  # noqa: BLE001 - as a loop does where it calls a protocol itself
                events.error("loop_error", text="a stranger was not heard", exc_info=error)
