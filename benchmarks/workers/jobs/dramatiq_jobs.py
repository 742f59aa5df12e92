"""The job for `dramatiq`: as `def`, or as `async def` with its AsyncIO middleware."""

from __future__ import annotations

import os

import dramatiq
from benchmarks.workers.tally import tally
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware.asyncio import AsyncIO

broker = RedisBroker(url=os.environ["BENCH_URL"])
dramatiq.set_broker(broker)
done = tally().done

if os.environ.get("BENCH_ASYNC"):
    broker.add_middleware(AsyncIO())

    @dramatiq.actor
    async def noop(body: str) -> None:
        """Do nothing."""
        done()

else:

    @dramatiq.actor  # type: ignore[no-redef]
    def noop(body: str) -> None:
        """Do nothing."""
        done()


def publish(count: int, body: str) -> None:
    """Publish `count` jobs."""
    for _ in range(count):
        noop.send(body)
