"""beanstalkd through greenstalk, which blocks: each call is a round trip, so several run in threads.

Each thread has a connection of its own. The server answers a put when it is in the log, synced as its -f says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import greenstalk
from benchmarks.peers.client import Seen, shares

THREADS = 4  # more were no faster: the lock of Python, and a server with one thread
TUBE = "bench"
RESERVE_S = 5


class Client:
    """One connection to publish, and one a thread."""

    def __init__(self, url: str, option: str) -> None:
        found = urlsplit(url)
        self._address = (found.hostname, found.port)
        self._pool = ThreadPoolExecutor(THREADS + 1)

    async def open(self) -> None:
        """Connect all."""
        self._connections = [self._connect() for _ in range(THREADS + 1)]

    def _connect(self) -> Any:
        return greenstalk.Client(self._address, encoding=None, use=TUBE, watch=TUBE)

    async def close(self) -> None:
        """Leave."""
        for connection in self._connections:
            connection.close()
        self._pool.shutdown()

    async def publish(self, body: bytes) -> None:
        """Put one message, blocking: a thread for each call would cost more than the call.

        The last connection is never one of a consumer.
        """
        self._connections[-1].put(body)

    def blocking(self) -> Callable[[bytes], object]:
        """Put, as in `publish`: it is the only client there is."""
        return self._connections[-1].put  # type: ignore[no-any-return]

    async def publish_single(self, body: bytes, count: int, window: int) -> None:
        """Put in threads; a wider window would need more of them."""

        def put(connection: Any, share: int) -> None:
            for _ in range(share):
                connection.put(body)

        await self._in_threads(put, count, THREADS)

    async def publish_batches(self, body: bytes, count: int, batch: int, window: int) -> None:
        """Put message by message, as there is no command for several."""
        await self.publish_single(body, count, window)

    async def consume(self, count: int, prefetch: int, many: bool, seen: Seen) -> None:
        """Reserve and delete one message after the other: in one thread at prefetch 1, else in several."""

        def take(connection: Any, share: int) -> None:
            for _ in range(share):
                job = connection.reserve(timeout=RESERVE_S)
                seen(job.body)
                connection.delete(job)

        await self._in_threads(take, count, THREADS if prefetch > 1 else 1)

    async def _in_threads(self, work: Callable[[Any, int], None], count: int, threads: int) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(
                loop.run_in_executor(self._pool, work, connection, share)
                for connection, share in zip(
                    self._connections, shares(count, threads), strict=False
                )
            )
        )

    async def purge(self) -> None:
        """Reserve and delete all: there is no command for it."""
        loop = asyncio.get_running_loop()
        waiting = await loop.run_in_executor(self._pool, self._count)
        await self.consume(waiting, 2, False, len)

    async def waiting(self) -> int:
        """Return the ready messages of the tube."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._count)

    def _count(self) -> int:
        return int(self._connections[0].stats_tube(TUBE)["current-jobs-ready"])

    async def server_bytes(self) -> int:
        """Only the processor time is told."""
        return 0
