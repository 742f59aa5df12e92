"""One life of a broker of a world whose log is in a stream: it may stand by before it leads."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any, Final, cast

from sim_asyncio import AsyncioLoop, pass_by
from sim_broker import SimulatedBroker
from sim_disk import FaultyDisk
from sim_memory import Memory
from sim_stream_log import SimulatedStreamLog, StreamTime

from minibrokerd.serving.which_log import stand_by

READ_S: Final = 0.001  # until whoever starts looks again whether something was read


class StreamBroker(SimulatedBroker):
    """`begin` makes it come to lead; the world is told of the end of that."""

    def __init__(
        self, time: StreamTime, name: str, own: Random, *arguments: Any, standby: bool = False
    ) -> None:
        self._time = time
        self.name = name
        self._own = own
        self.standby = standby
        self.view = SimpleNamespace(active="")
        self.claimed_us = 0
        super().__init__(*arguments)
        self.view.log, self.view.engine, self.view.core = self.log, self.engine, self.core

    def make_log(
        self, disk: FaultyDisk, segment_bytes: int, memory: Memory, make_writer: Callable[..., Any]
    ) -> SimulatedStreamLog:
        """Return its log: the stream of the world."""
        self.asyncio = AsyncioLoop(self.loop)
        return SimulatedStreamLog(self._time, self.asyncio, self.name, segment_bytes, self._own)

    def begin(self, ended: Callable[[StreamBroker, BaseException | None], None]) -> None:
        """Come to lead, and tell when that is so, or why not."""
        task = self.asyncio.create_task(self._come())
        task.add_done_callback(lambda task: ended(self, task.exception()))

    async def _come(self) -> None:
        if self.standby:
            signals = cast(Any, SimpleNamespace(asked=0))
            await stand_by(
                cast(Any, SimpleNamespace(log="simulated")), signals, cast(Any, self.view)
            )
            self.claimed_us = self.loop.world.now_us
        base_ms = 0
        for batch in self.log.recover():
            if batch is None:
                await pass_by(READ_S)
            else:
                self.engine.replay(batch)
                base_ms = max(base_ms, batch.now_ms)
        self.opened(base_ms)

    def when_closed(self, done: Callable[[], None]) -> None:
        """Call when the footer is written, or was waited for long enough."""
        self.log.when_closed(done)
