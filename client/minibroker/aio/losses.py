"""What is done in the loop when a message is lost: its handler is cancelled, and this cancellation taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from minibroker.aio.message import Message
from minibroker.contract.errors import MinibrokerError
from minibroker.session.message import MessageData
from minibroker.shell.telling import Telling

SettleErrorHook = Callable[[Message[Any], MinibrokerError], object]


class Losses:
    """Tells of lost messages, each of them once, and knows which tasks were cancelled for them."""

    def __init__(self, telling: Telling) -> None:
        self._telling = telling

    def lost(self, messages: Sequence[MessageData[Any]], error: MinibrokerError) -> None:
        """Tell that these messages are not this client's any more; cancel their handlers."""
        self._telling.lost(messages, error)
        for message in messages:
            task = message.task
            if isinstance(task, asyncio.Task) and not task.done():
                message.task = task.cancelling()  # what `takes_cancellation` compares with
                task.cancel(str(error))
            self._telling.to_hook(message, error)

    def takes_cancellation(self, message: Message[Any], error: BaseException | None) -> bool:
        """Take back what `lost` asked of the task; return whether `error` is that, and nothing else."""
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
