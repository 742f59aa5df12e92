"""Redis Streams with a consumer group, through redis-py with hiredis.

A stream keeps what was acked, so an ack is XACK and XDEL: a work queue must not grow for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis.asyncio
from benchmarks.peers.client import Seen, in_tasks

STREAM, GROUP, CONSUMER = "bench", "workers", "one"
BLOCK_MS = 1_000


class Client:
    """Commands that belong together go into one pipeline, without a transaction."""

    def __init__(self, url: str, option: str) -> None:
        # With a timeout the library arms a timer for every reply of a pipeline: half the rate (measured).
        self._redis: Any = redis.asyncio.from_url(url, socket_timeout=None)
        self._blocking: Any = redis.Redis.from_url(url)  # which connects when it is used

    async def open(self) -> None:
        """Connect, and make the stream and its group, if they are not there."""
        try:
            await self._redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def close(self) -> None:
        """Leave."""
        await self._redis.aclose()

    async def publish(self, body: bytes) -> None:
        """XADD one message."""
        await self._redis.xadd(STREAM, {"b": body})

    def blocking(self) -> Callable[[bytes], object]:
        """XADD through the client that blocks."""
        add = self._blocking.xadd
        return lambda body: add(STREAM, {"b": body})

    async def publish_single(self, body: bytes, count: int, window: int) -> None:
        """Publish in batches as large as the window, one after the other."""
        await self.publish_batches(body, count, window, 1)

    async def publish_batches(self, body: bytes, count: int, batch: int, window: int) -> None:
        """XADD in pipelines; each of those in flight has a connection of the pool."""

        async def publish() -> None:
            pipeline = self._redis.pipeline(transaction=False)
            for _ in range(batch):
                pipeline.xadd(STREAM, {"b": body})
            await pipeline.execute()

        await in_tasks(count // batch, window, publish)

    async def consume(self, count: int, prefetch: int, many: bool, seen: Seen) -> None:
        """XREADGROUP, then XACK and XDEL: all ids in one command each, or one id a command."""
        end = self._end_many if many else self._end_each
        left = count
        while left:
            wanted = min(prefetch, left)
            read = await self._redis.xreadgroup(
                GROUP, CONSUMER, {STREAM: ">"}, count=wanted, block=BLOCK_MS
            )
            entries = entries_of(read)
            for _, fields in entries:
                seen(fields[b"b"])
            if entries:
                await end([name for name, _ in entries])
            left -= len(entries)

    async def _end_each(self, names: list[bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.xack(STREAM, GROUP, name)
            pipeline.xdel(STREAM, name)
        await pipeline.execute()

    async def _end_many(self, names: list[bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.xack(STREAM, GROUP, *names)
        pipeline.xdel(STREAM, *names)
        await pipeline.execute()

    async def purge(self) -> None:
        """Delete the stream, which takes the group with it, and make both again."""
        await self._redis.delete(STREAM)
        await self.open()

    async def waiting(self) -> int:
        """XLEN."""
        return int(await self._redis.xlen(STREAM))

    async def server_bytes(self) -> int:
        """used_memory."""
        return int((await self._redis.info("memory"))["used_memory"])


def entries_of(read: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the entries of one stream; the library answers with a list, or with a map (RESP3)."""
    if not read:
        return []
    if isinstance(read, dict):
        found = next(iter(read.values()))
        return list(found[0]) if found and isinstance(found[0], list) else list(found)
    return list(read[0][1])
