"""Which event loop a connection belongs to, and in which thread that runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any, Final

get_running_loop: Final = asyncio._get_running_loop  # None instead of an error where there is none
NO_LOOP: Final = (
    "no event loop of asyncio runs here, and nothing was sent: await this in a coroutine of asyncio; "
    "without one (a plain function, a thread, trio) use minibroker.sync"
)
NOWHERE: Final[Any] = object()  # not None, which is what runs where no loop does


class InLoop:
    """What belongs to one event loop, once it is bound to it."""

    loop: asyncio.AbstractEventLoop
    create_future: Callable[[], asyncio.Future[Any]]
    current_task: Callable[[], Any]

    def unbind(self) -> None:
        """Belong to no loop, as at first."""
        self.loop = NOWHERE
        # The loop's thread. Asking which loop runs is a system call in Python 3.11, so what runs per message looks
        # at the thread, and at the loop only when no flush is scheduled: the first call of a turn schedules one.
        self.thread = 0  # no thread's

    @property
    def is_bound(self) -> bool:
        """Whether it belongs to a loop."""
        return self.loop is not NOWHERE

    def bind(self) -> None:
        """Belong to the loop that runs; RuntimeError if none does."""
        loop = get_running_loop()
        if loop is None:
            raise RuntimeError(NO_LOOP)
        self.loop = loop
        self.thread = get_ident()
        self.create_future = loop.create_future
        self.current_task = partial(asyncio.current_task, loop)
