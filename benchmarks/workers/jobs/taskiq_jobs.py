"""The job for `taskiq worker`, over a stream of Redis (acked) or a list of Redis (no ack)."""

from __future__ import annotations

import asyncio
import os

from benchmarks.workers.tally import tally
from taskiq_redis import ListQueueBroker, RedisStreamBroker

kind = ListQueueBroker if os.environ.get("BENCH_LIST") else RedisStreamBroker
broker = kind(os.environ["BENCH_URL"])
done = tally().done
AT_A_TIME = 20


@broker.task
async def noop(body: str) -> None:
    """Do nothing."""
    done()


async def _publish(count: int, body: str) -> None:
    await broker.startup()

    async def some() -> None:
        for _ in range(count // AT_A_TIME):
            await noop.kiq(body)

    await asyncio.gather(*(some() for _ in range(AT_A_TIME)))
    await broker.shutdown()


def publish(count: int, body: str) -> None:
    """Publish `count` jobs."""
    asyncio.run(_publish(count, body))
