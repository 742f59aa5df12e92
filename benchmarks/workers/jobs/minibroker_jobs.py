"""The job for `minibroker worker`."""

from __future__ import annotations

import asyncio
import os

from benchmarks.workers.tally import tally

import minibroker

BATCH = 1_000

app = minibroker.App(os.environ["BENCH_URL"])
done = tally().done


@app.handler("jobs", concurrency=int(os.environ.get("BENCH_CONCURRENCY", "1")))
async def noop(body: str) -> None:
    """Do nothing."""
    done()


async def _publish(count: int, body: str) -> None:
    async with minibroker.connect(os.environ["BENCH_URL"]) as broker:
        queue = broker.queue("jobs")
        for _ in range(count // BATCH):
            await queue.publish_many([body] * BATCH)


def publish(count: int, body: str) -> None:
    """Publish `count` jobs."""
    asyncio.run(_publish(count, body))
