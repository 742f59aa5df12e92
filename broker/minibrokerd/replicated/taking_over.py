"""How a broker comes to lead: it reads the log, claims it, and reads the rest up to its claim.

That is done before the port opens and may take a while, so it has a thread, a loop and a connection of its own;
whoever starts takes the batches out of a queue, while more are read.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from minibrokerd.log.seam import Batch
from minibrokerd.replicated.failures import StreamUnreachable, Trimmed
from minibrokerd.replicated.history import History
from minibrokerd.replicated.leading import READ_BYTES, Fence
from minibrokerd.replicated.stream import EntriesGone, Entry, Stream, StreamAway

READ_AHEAD: Final = 4  # answers to reads that wait to be replayed
LOOKS_AGAIN: Final = (
    3  # at the end of what could be read, before the claim: another replica may have more
)
LOOK_AGAIN_S: Final = 0.01
PATIENCE_S: Final = (
    30.0  # an election takes up to 9 s, and a server that was cut off 20 s to notice
)

OpenStream = Callable[[], Awaitable[Stream]]


class TakeOver:
    """One reading of the log that ends in leading it."""

    def __init__(
        self,
        history: History,
        open_stream: OpenStream,
        make_fence: Callable[[Stream], Fence],
        claim: Callable[[], bytes],
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`claim` makes the epoch record, when all that can be read was read.

        Where nothing goes on for `patience_s` it gives up.
        """
        self._history = history
        self._open_stream = open_stream
        self._make_fence = make_fence
        self._claim = claim
        self._read: queue.Queue[list[Batch] | BaseException | None] = queue.Queue(READ_AHEAD)
        self._is_over = False
        self._patience_s = patience_s
        self.position = 0  # of our epoch record, at the end
        self.reason = ""  # why it waits
        self.end = 0  # where the stream is thought to end

    def batches(self) -> Iterator[Batch]:
        """Yield the batches of data, oldest first; blocks while none is there. At its end the log is led.

        Raises:
            LogError: see `failures.py`.
        """
        threading.Thread(target=self._run, name="minibroker-log", daemon=True).start()
        try:
            while (found := self._read.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                yield from found
        finally:
            self._is_over = True

    def _run(self) -> None:
        try:
            asyncio.run(self._take_over())
            self._read.put(None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the batches are waited for
            self._read.put(error)

    async def _take_over(self) -> None:
        stream = await self._open_stream()
        try:
            fence = self._make_fence(stream)
            await self._read_what_is_there(stream)
            try:
                async with asyncio.timeout(self._patience_s):
                    end = max(self.end, self._history.read_to)
                    self.position = await fence.claim(self._claim(), end)
                await self._read_the_rest(fence)
            except TimeoutError as error:
                advice = "see that most servers of NATS run and reach each other, then start again"
                why = f"nothing is stored there ({self.reason or 'no answer'})"
                raise StreamUnreachable(stream.name, why, advice) from error
            except EntriesGone as gone:
                raise Trimmed(stream.name, gone.wanted) from gone
            self._history.end()
        finally:
            await stream.close()

    async def _read_the_rest(self, fence: Fence) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._patience_s) as patience:
            async for entries in fence.read(self._history.read_to + 1, self.position):
                self._take(entries)
                patience.reschedule(loop.time() + self._patience_s)

    async def _read_what_is_there(self, stream: Stream) -> None:
        """Read up to the end, about: whoever leads may go on. It makes the time between two leaders short."""
        history, looks = self._history, 0
        info = await _info(stream)
        self.end, first = info, 1
        while looks < LOOKS_AGAIN and not self._is_over:
            try:
                entries = await stream.read(first, READ_BYTES)
            except EntriesGone as gone:
                if history.head:
                    raise Trimmed(stream.name, gone.wanted) from gone
                first = gone.first
                continue
            except StreamAway:
                entries = []
            if entries:
                if not history.head:
                    history.begin(first)
                self._take(entries)
                first, looks = history.read_to + 1, 0
            elif history.read_to >= self.end:
                break
            else:
                looks += 1
                await asyncio.sleep(LOOK_AGAIN_S)
        if not history.head:
            history.begin(first)

    def _take(self, entries: list[Entry]) -> None:
        found = [batch for entry in entries if (batch := self._history.take(entry)) is not None]
        while not self._is_over:
            try:
                self._read.put(found, timeout=1.0)
                return
            except queue.Full:
                continue


async def _info(stream: Stream) -> int:
    try:
        return (await stream.info()).last
    except StreamAway:
        return 0
