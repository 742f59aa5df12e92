"""The log of a world in a stream: the real one, on a simulated stream that goes by the time of the world.

Whoever takes over reads in a thread of its own; here it is a task of the same loop. And a stop waits for its
footer without blocking anybody.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final

from sim_asyncio import AsyncioLoop, pass_by
from sim_loop import Life, LifeLoop, SimulatedLoop
from sim_stream import Connection, SimStream

from minibrokerd.replicated.entries import Owner, run_of
from minibrokerd.replicated.log import CLOSE_S, JetStreamLog
from minibrokerd.replicated.stream import Stream
from minibrokerd.replicated.taking_over import PATIENCE_S, Found, Mark, TakeOver
from minibrokerd.replicated.words import Word

MOST_TICKS: Final = 200  # in one go: nobody waited for so long


class StreamTime:
    """Lets a stream go by the time of a world, whenever somebody waits for it."""

    def __init__(
        self, stream: SimStream, loop: SimulatedLoop, tick_us: int, random: Random
    ) -> None:
        self.stream = stream
        self.tick_us = tick_us
        self.beside = random.choice(("", "", "s1"))
        self._loop = loop
        self._ticked_us = 0

    async def turn(self) -> None:
        """Wait for a moment."""
        await pass_by(self.tick_us / 1_000_000)
        late = (self._loop.now_us - self._ticked_us) // self.tick_us
        for _ in range(max(1, min(late, MOST_TICKS))):
            self.stream.tick()
        self._ticked_us = self._loop.now_us

    async def connect(self) -> Connection:
        """Return a connection of one more broker."""
        spawn = asyncio.get_running_loop().create_task
        connection = self.stream.connect(self.turn, spawn)
        connection.beside = self.beside
        return connection


class Unblocking(queue.Queue[Any]):
    """What is read, for whoever looks now and then: he is told at once that there is nothing."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take what is there."""
        return super().get(block=False)


class TaskTakeOver(TakeOver):
    """One reading of the log, in the loop that asks for it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._read: queue.Queue[Found | Mark | BaseException] = Unblocking(self._read.maxsize)

    def ask(self, question: Callable[[Stream], Coroutine[Any, Any, Any]]) -> Any:
        """Have something asked while everything else stands still, as it does for whoever replays."""
        assert self._stream is not None, "it is asked about what was read"
        loop = SimulatedLoop()
        asked = AsyncioLoop(LifeLoop(loop, Life())).create_task(question(self._stream))
        loop.run_until(round(PATIENCE_S * 1_000_000), asked.done)
        if not asked.done():
            raise self._unreachable(self._stream)
        return asked.result()

    def _rest(self) -> None:
        """Its task ends at its next step, and does nothing in it."""

    def _begin(self) -> None:
        if not self._is_begun:
            self._is_begun = True
            asyncio.get_running_loop().create_task(self._told())

    async def _told(self) -> None:
        try:
            await self.work()
        except Exception as error:  # noqa: BLE001 - it is raised where the batches are waited for
            self._read.queue.clear()  # nobody needs it any more
            self._read.put_nowait(error)
            self._news()


class SimulatedStreamLog(JetStreamLog):
    """The log of one life of a broker."""

    def __init__(
        self, time: StreamTime, loop: AsyncioLoop, name: str, stretch_bytes: int, random: Random
    ) -> None:
        super().__init__("simulated", time.connect, name, stretch_bytes, f"{name}:1")
        # What would be random: two runs of a world are one history.
        self._owner = Owner(random.getrandbits(32), random.getrandbits(32), name)
        self._word = Word(run_of(self._owner.bits), name, f"{name}:1")
        self.store_id, self.session_key = random.randbytes(16), random.randbytes(32)
        self._asyncio = loop
        self._closed: list[Callable[[], object]] = []

    def close(self, now_ms: int, unix_ms: int) -> None:
        """Append the footer of a clean stop; `when_closed` tells of its end."""
        self._stamp = now_ms, unix_ms
        closing = self._asyncio.create_task(self._close())
        closing.add_done_callback(self._is_closed)
        self._asyncio.call_later(CLOSE_S, self._is_closed, closing)

    def when_closed(self, done: Callable[[], object]) -> None:
        """Call at the end of a stop."""
        self._closed.append(done)

    def _is_closed(self, closing: asyncio.Task[None]) -> None:
        while self._closed:
            self._closed.pop()()
