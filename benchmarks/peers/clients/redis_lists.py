"""Redis lists as a reliable queue, through redis-py with hiredis: LPUSH, LMOVE to a list of one's own, LREM.

What a worker had moved when it died stays in its list: to find that and hand it out again is the user's work.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.peers.client import Seen, in_tasks
from benchmarks.peers.clients import redis

WAITING, TAKEN = "bench", "bench:worker"


class Client(redis.Client):
    """The connection of the streams' client, and other commands."""

    async def open(self) -> None:
        """Lists appear with their first message."""

    async def publish(self, body: bytes) -> None:
        """LPUSH one message."""
        await self._redis.lpush(WAITING, body)

    def blocking(self) -> Callable[[bytes], object]:
        """LPUSH through the client that blocks."""
        push = self._blocking.lpush
        return lambda body: push(WAITING, body)

    async def publish_batches(self, body: bytes, count: int, batch: int, window: int) -> None:
        """LPUSH of a whole batch, which one command takes; each in flight has a connection of the pool."""
        await in_tasks(count // batch, window, self._push, [body] * batch)

    async def _push(self, bodies: list[bytes]) -> None:
        await self._redis.lpush(WAITING, *bodies)

    async def consume(self, count: int, prefetch: int, many: bool, seen: Seen) -> None:
        """LMOVE as many as the prefetch says in a pipeline, then LREM each in another one."""
        left = count
        while left:
            pipeline = self._redis.pipeline(transaction=False)
            for _ in range(min(prefetch, left)):
                pipeline.lmove(WAITING, TAKEN, "RIGHT", "LEFT")
            bodies = [body for body in await pipeline.execute() if body is not None]
            if not bodies:
                bodies = [await self._redis.blmove(WAITING, TAKEN, 0, "RIGHT", "LEFT")]
            pipeline = self._redis.pipeline(transaction=False)
            for body in bodies:
                seen(body)
                pipeline.lrem(TAKEN, 1, body)
            await pipeline.execute()
            left -= len(bodies)

    async def purge(self) -> None:
        """Delete both lists."""
        await self._redis.delete(WAITING, TAKEN)

    async def waiting(self) -> int:
        """LLEN."""
        return int(await self._redis.llen(WAITING))
