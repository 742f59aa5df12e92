"""Messages that are lent to a library which prefetches by itself: not begun before it starts them.

Such a library pulls messages into a queue of its own, and starts them later. Begun when they are pulled, each
would use up an attempt when the process dies, and nobody else could have it while it waits. So they are lent: they
count as prefetched, are asked back for workers that have nothing to do, and go back when the connection is lost.
Each is begun when its handler starts, if it is still here by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from minibroker.session.delivery import drop
from minibroker.session.settlements import BEGUN, HELD, TOLD
from minibroker.session.subscription import QUIET_S, Subscription


class Lending(Subscription):
    """What both shells' consumers need to lend messages; it stands before the consumer among the bases."""

    takes_begun = False  # who takes a message does not begin it yet

    def __init__(self, *args: Any) -> None:
        # Who pops a message out of it may do with it what he wants: threads look here at the same time.
        self._lent: dict[int, Any] = {}
        super().__init__(*args)

    def lend_one(self) -> Any:
        """Return a message that is here and not begun, None without one; within a step."""
        if self._ended:
            return None
        with suppress(IndexError):
            message = self._buffer.popleft()
            self._lent[id(message)] = message
            return message
        return None

    def begin_lent(self, message: Any, now: float) -> bool:
        """Begin a message that was lent, at `now` (monotonic seconds); within a step.

        False: it is not here any more, and somebody else may have it. True also of one that was begun before.
        """
        if self._lent.pop(id(message), None) is not None and message.state == HELD:
            message.begun_at, message.state = now, BEGUN
            if not self._settlements.begins:
                self._settlements.owe()
            self._settlements.begins.append(message)
        return message.state in (BEGUN, TOLD)

    @staticmethod
    def leaves_first(message: Any, last_write: float) -> bool:
        """Whether the begin is to be written before the handler computes, as for every consumer."""
        return bool(message.begun_at - last_write > QUIET_S or message.marked)

    # ---- what was lent goes as what is in the buffer goes ----

    def take_buffer(self) -> list[Any]:
        """Take out what was not begun, whether it was lent or not."""
        taken = super().take_buffer()
        with suppress(KeyError):
            while True:
                taken.append(self._lent.popitem()[1])
        return taken

    def take_out(self, messages: Sequence[Any]) -> list[Any]:
        """Take messages out that are not to begin here; return those."""
        taken: list[Any] = []
        others: list[Any] = []
        for message in messages:
            lent = self._lent.pop(id(message), None) is not None
            (taken if lent else others).append(message)
        return super().take_out(others) + taken

    def drop_buffer(self) -> None:
        """Forget what was not begun: the connection that held it has ended, or gives it back."""
        drop([message for message in self.take_buffer() if message.state == HELD])
