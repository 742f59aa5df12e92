"""`python -m benchmarks.spans.worked FILE URL KIND DO COUNT PREFETCH`: a client with stamps.

It says when it is ready, works at the first line of standard input, says when it has done that, and writes its
stamps into FILE at the second line.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from time import monotonic_ns, sleep
from typing import Any, Final

import uvloop
from benchmarks.rows import BODY_BYTES
from benchmarks.spans.stamps import Stamps, put_all
from benchmarks.spans.table import CALLED, CLIENT_STAMPS, HANDLED

import minibroker
import minibroker.sync

BODY: Final = bytes(BODY_BYTES)
PAUSE_S: Final = 0.01  # between two messages to an idle consumer
FILLED: Final = 500  # messages of a publish_many


def told() -> str:
    """Return the next line of the process that measures."""
    return sys.stdin.readline()


def say(word: str) -> None:
    """Tell it something."""
    print(word, flush=True)


class Asyncio:
    """The works through the asyncio client, on uvloop."""

    def __init__(self, stamps: Stamps, url: str, count: int, prefetch: int) -> None:
        self._stamps, self._url, self._count, self._prefetch = stamps, url, count, prefetch

    def run(self, do: str) -> None:
        """Do a work, in a loop of its own."""
        uvloop.run(self._run(do))

    async def _run(self, do: str) -> None:
        async with minibroker.connect(self._url) as broker:
            works = {
                "publish": self._publish,
                "publish-now-and-then": self._publish_now_and_then,
                "consume": self._consume,
                "fill-and-consume": self._fill_and_consume,
            }
            await works[do](broker.queue("bench", bytes))

    async def _ready(self) -> None:
        say("ready")
        await asyncio.get_running_loop().run_in_executor(None, told)

    async def _publish(self, queue: Any, pause_s: float = 0.0) -> None:
        await self._ready()
        for _ in range(self._count):
            begin = monotonic_ns()
            await queue.publish(BODY)
            self._stamps.note(CALLED, begin, monotonic_ns())
            if pause_s:
                await asyncio.sleep(pause_s)

    async def _publish_now_and_then(self, queue: Any) -> None:
        await self._publish(queue, PAUSE_S)

    async def _consume(self, queue: Any) -> None:
        left = self._count
        async with queue.consume(prefetch=self._prefetch) as messages:
            await self._ready()
            async for message in messages:
                begin = monotonic_ns()
                async with message.process():
                    pass
                self._stamps.note(HANDLED, begin, monotonic_ns())
                left -= 1
                if not left:
                    break

    async def _fill_and_consume(self, queue: Any) -> None:
        for at in range(0, self._count, FILLED):
            await queue.publish_many([BODY] * min(FILLED, self._count - at))
        await self._consume(queue)


class Blocking:
    """The same through the blocking client, in one thread."""

    def __init__(self, stamps: Stamps, url: str, count: int, prefetch: int) -> None:
        self._stamps, self._url, self._count, self._prefetch = stamps, url, count, prefetch

    def run(self, do: str) -> None:
        """Do a work in this thread."""
        with minibroker.sync.connect(self._url) as broker:
            queue = broker.queue("bench", bytes)
            if do == "fill-and-consume":
                for at in range(0, self._count, FILLED):
                    queue.publish_many([BODY] * min(FILLED, self._count - at))
            if do.startswith("publish"):
                self._publish(queue, PAUSE_S if do == "publish-now-and-then" else 0.0)
            else:
                self._consume(queue)

    def _publish(self, queue: Any, pause_s: float) -> None:
        say("ready")
        told()
        for _ in range(self._count):
            begin = monotonic_ns()
            queue.publish(BODY)
            self._stamps.note(CALLED, begin, monotonic_ns())
            if pause_s:
                sleep(pause_s)

    def _consume(self, queue: Any) -> None:
        left = self._count
        with queue.consume(prefetch=self._prefetch) as messages:
            say("ready")
            told()
            for message in messages:
                begin = monotonic_ns()
                with message.process():
                    pass
                self._stamps.note(HANDLED, begin, monotonic_ns())
                left -= 1
                if not left:
                    break


WORKERS: Final = {"asyncio": Asyncio, "blocking": Blocking}


def main() -> None:
    """Work, then write the stamps."""
    path, url, kind, do, count, prefetch = sys.argv[1:]
    stamps = put_all(CLIENT_STAMPS[kind])
    WORKERS[kind](stamps, url, int(count), int(prefetch)).run(do)
    say("done")
    told()
    stamps.write(Path(path))


if __name__ == "__main__":
    main()
