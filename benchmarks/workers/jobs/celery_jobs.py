"""The job for `celery worker`. Celery has no `async def`."""

from __future__ import annotations

import os

from benchmarks.workers.tally import tally
from celery import Celery

app = Celery("jobs", broker=os.environ["BENCH_URL"])
if prefetch := os.environ.get("BENCH_PREFETCH"):
    app.conf.worker_prefetch_multiplier = int(prefetch)
done = tally().done


@app.task(ignore_result=True)
def noop(body: str) -> None:
    """Do nothing."""
    done()


def publish(count: int, body: str) -> None:
    """Publish `count` jobs on one connection."""
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(count):
            noop.apply_async((body,), producer=producer)
