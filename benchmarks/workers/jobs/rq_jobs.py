"""The job for `rq worker`: as `def`, for an `async def` would get an event loop of its own each time."""

from __future__ import annotations

import os

from benchmarks.workers.tally import tally
from redis import Redis
from rq import Queue

done = tally().done
BATCH = 500


def noop(body: str) -> None:
    """Do nothing."""
    done()


def publish(count: int, body: str) -> None:
    """Publish `count` jobs, many with one pipeline."""
    queue = Queue(connection=Redis.from_url(os.environ["BENCH_URL"]))
    for _ in range(count // BATCH):
        queue.enqueue_many([Queue.prepare_data(noop, (body,)) for _ in range(BATCH)])
