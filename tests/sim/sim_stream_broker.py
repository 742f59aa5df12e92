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

from minibrokerd.log.failures import ReadAgain
from minibrokerd.serving.which_log import stand_by

READ_S: Final = 0.001  # until whoever starts looks again whether something was read


class Subject:
    """What `stand_by` knows of its broker."""

    def __init__(self, broker: StreamBroker) -> None:
        self._broker = broker

    @property
    def log(self) -> Any:
        """Its log."""
        return self._broker.log

    @property
    def core(self) -> Any:
        """Its core."""
        return self._broker.core

    @property
    def engine(self) -> Subject:
        """What it replays."""
        return self

    def replay(self, batch: Any) -> None:
        """Replay a batch."""
        self._broker.engine.replay(batch)

    def begin_again(self) -> None:
        """Forget what was replayed."""
        self._broker.agains += 1
        self._broker.engine.begin_again()

    @property
    def active(self) -> str:
        """Where clients are sent to."""
        return self._broker.active

    @active.setter
    def active(self, address: str) -> None:
        self._broker.active = address
        self._broker.named(self._broker, address)


class StreamBroker(SimulatedBroker):
    """`begin` makes it come to lead; the world is told of the end of that."""

    def __init__(
        self, time: StreamTime, name: str, own: Random, *arguments: Any, standby: bool = False
    ) -> None:
        self._time = time
        self.name = name
        self._own = own
        self.standby = standby
        self.active = ""  # who is said to lead, while it stands by
        self.view: Any = Subject(self)
        self.compare: Callable[[StreamBroker], object] = lambda broker: None  # when it leads
        self.named: Callable[[StreamBroker, str], object] = lambda broker, address: None
        self.agains = 0  # times that it threw away what it knew
        super().__init__(*arguments)

    def make_log(
        self, disk: FaultyDisk, segment_bytes: int, memory: Memory, make_writer: Callable[..., Any]
    ) -> SimulatedStreamLog:
        """Return its log: the stream of the world."""
        self.asyncio = AsyncioLoop(self.loop)
        self.loop.create_task = self.asyncio.create_task
        return SimulatedStreamLog(self._time, self.asyncio, self.name, segment_bytes, self._own)

    def begin(self, ended: Callable[[StreamBroker, BaseException | None], None]) -> None:
        """Come to lead, and tell when that is so, or why not."""
        task = self.asyncio.create_task(self._come())
        task.add_done_callback(lambda task: ended(self, task.exception()))

    async def _come(self) -> None:
        if self.standby:
            signals = cast(Any, SimpleNamespace(asked=0))
            await stand_by(cast(Any, SimpleNamespace(log="simulated")), signals, self.view)
        while True:
            try:
                await self._read()
                break
            except ReadAgain:
                self.view.begin_again()
        self.opened()
        self.compare(self)

    async def _read(self) -> None:
        for batch in self.log.recover():
            if batch is None:
                await pass_by(READ_S)
            else:
                self.engine.replay(batch)

    @property
    def claim(self) -> int:
        """Where its epoch record stands; 0: it has none."""
        taking = self.log._taking
        return taking.position if taking is not None else 0

    def when_closed(self, done: Callable[[], None]) -> None:
        """Call when the footer is written, or was waited for long enough."""
        self.log.when_closed(done)
