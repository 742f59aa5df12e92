"""A message as a `def` handler has it in its thread: the same values, and verbs that block.

The verbs are those of `minibroker.sync`. The connection is the loop's, so each is done there, and the thread waits
for it. What a handler returns may be awaited, in the loop: there the same verbs are those of asyncio.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from threading import get_ident
from types import TracebackType
from typing import Any

from minibroker.aio.atomic_step import Step
from minibroker.aio.message import Message
from minibroker.session.settlements import ENDED
from minibroker.session.spans import Span


class MessageInThread:
    """One message for a thread beside the loop; what is read or set is the message's own."""

    __slots__ = ("_loop", "_loop_thread", "_message")

    def __init__(self, message: Message[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Take the message; called in the thread of `loop`."""
        object.__setattr__(self, "_message", message)
        object.__setattr__(self, "_loop", loop)
        object.__setattr__(self, "_loop_thread", get_ident())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._message, name, value)

    def __repr__(self) -> str:
        return repr(self._message)

    def step(self, *, timeout: Span | None = None) -> Step:
        """Return a block as `minibroker.sync.Message.step` does: `with message.step() as step:`."""
        if get_ident() == self._loop_thread:
            made: Step = self._message.step(timeout=timeout)
            return made
        step = StepInThread(self._message.run.delivery.shell, timeout)
        step.loop = self._loop
        step.ack(self._message)
        return step


def _blocking(name: str) -> Callable[..., Any]:
    """Return a verb of the message that is done in the loop while the thread waits."""
    verb = getattr(Message, name)

    def call(self: MessageInThread, *args: Any, **named: Any) -> Any:
        asked = verb(self._message, *args, **named)
        return asked if get_ident() == self._loop_thread else wait_for(asked, self._loop)

    call.__name__, call.__doc__ = name, verb.__doc__
    return call


for _name in ("ack", "complete", "progress", "nack", "reject", "release", "extend"):
    setattr(MessageInThread, _name, _blocking(_name))


class StepInThread(Step):
    """A step whose block is one of `with`, in a thread beside the loop."""

    loop: asyncio.AbstractEventLoop

    def __enter__(self) -> StepInThread:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            wait_for(self._commit(), self.loop)


async def settle(message: Message[Any], value: object, error: BaseException | None) -> None:
    """Settle a message whose call came to its end after its task was cancelled, as far as it has ended."""
    if message.state == ENDED:
        return
    if inspect.iscoroutine(value):
        value.close()  # it was to be awaited by the task
    elif error is None:
        await message.ack()
    elif isinstance(error, Exception):
        await message.nack(error)


def wait_for(asked: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Any:
    """Have something awaited in the loop, and return or raise what it comes to.

    Raises:
        RuntimeError: the loop is closed; it was not done.
    """
    try:
        future = asyncio.run_coroutine_threadsafe(asked, loop)
    except RuntimeError:
        asked.close()
        raise
    return future.result()
