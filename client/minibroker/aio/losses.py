"""What is done when a message is lost or its handler fails: warn, cancel, tell the application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from minibroker.contract.errors import MinibrokerError
from minibroker.session.error_text import describe
from minibroker.session.message import Message

logger = logging.getLogger("minibroker")
QUIET_S: Final = 1.0
SettleErrorHook = Callable[[Message[Any], MinibrokerError], object]


class Losses:
    """Tells of lost messages, each of them once; `hook` is the application's `on_settle_error`."""

    def __init__(self, hook: SettleErrorHook | None) -> None:
        self._hook = hook
        self._loop = asyncio.get_running_loop()
        self._unsaid: list[str] = []  # lost since the last line, in the queues of these names
        self._quiet = False  # a line was written a moment ago

    def lose(self, messages: Sequence[Message[Any]], error: MinibrokerError) -> None:
        """Note that these messages are not this client's any more; cancel their handlers."""
        lost = [message for message in messages if not message.lost]
        if lost:
            self._say(lost, error)
        for message in lost:
            message.lose()
            task = message.task
            if isinstance(task, asyncio.Task) and not task.done():
                message.task = task.cancelling()  # what `takes_cancellation` compares with
                task.cancel()
            self._tell(message, error)

    def _say(self, messages: Sequence[Message[Any]], error: MinibrokerError) -> None:
        """Write one line, and for what follows within a second another one: a thousand can be lost at once."""
        if self._quiet:
            self._unsaid += [message.queue for message in messages]
            return
        first = messages[0]
        others = f" and {len(messages) - 1} others" if len(messages) > 1 else ""
        logger.warning("message %s of %s%s: lost: %s", first.id, first.queue, others, error)
        self._quiet = True
        self._loop.call_later(QUIET_S, self.say_the_rest)

    def say_the_rest(self) -> None:
        """Write how many were lost since the last line."""
        self._quiet, unsaid, self._unsaid = False, self._unsaid, []
        if unsaid:
            names = ", ".join(sorted(set(unsaid))[:3])
            logger.warning("%d more messages are lost, of %s", len(unsaid), names)

    def _tell(self, message: Message[Any], error: MinibrokerError) -> None:
        if self._hook is None:
            return
        try:
            self._hook(message, error)
        except Exception:  # the application's code: it must not end the connection
            logger.exception("on_settle_error failed")

    def takes_cancellation(self, message: Message[Any], error: BaseException | None) -> bool:
        """Take back what `lose` asked of the task; return whether `error` is that, and nothing else."""
        before, message.task = message.task, None
        if type(before) is not int or (task := asyncio.current_task()) is None:
            return False
        # Also when the handler has swallowed it: the next one would count as asked for.
        left = task.uncancel()
        return left <= before and isinstance(error, asyncio.CancelledError)

    def is_cancelled(self) -> bool:
        """Return whether somebody asked the task that runs now to be cancelled."""
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    def failed(self, message: Message[Any], error: BaseException) -> None:
        """Log that a handler failed."""
        where = (message.id, message.queue, message.attempt)
        try:
            logger.warning(
                "the handler of message %s of %s (attempt %d) failed", *where, exc_info=error
            )
        except BaseException:  # noqa: BLE001 - formatting it runs the application's code, which has failed already
            error_class, text = describe(error)
            logger.warning(
                "the handler of message %s of %s (attempt %d) failed: %s: %s",
                *where, error_class.decode(), text.decode(),
            )  # fmt: skip
