"""The task of Taskiq, on the broker that the environment names: a list or a stream of Redis, or minibroker."""

from __future__ import annotations

import asyncio
import os

from benchmarks.torture.notes import LEASE_S, note
from taskiq import AsyncBroker
from taskiq_redis import ListQueueBroker, RedisStreamBroker

url = os.environ["TORTURE_URL"]
broker: AsyncBroker
if url.startswith("minibroker"):
    from minibroker.contrib.taskiq import MinibrokerBroker

    broker = MinibrokerBroker(url, settings={"lease_ms": LEASE_S * 1_000})
elif os.environ["TORTURE_BROKER"] == "redis-list":
    broker = ListQueueBroker(url)
else:
    broker = RedisStreamBroker(
        url, idle_timeout=LEASE_S * 1_000, unacknowledged_lock_timeout=LEASE_S
    )


@broker.task(task_name="work")
async def work(number: int, seconds: float) -> None:
    """Begin, work for a moment, end."""
    note("b", number)
    await asyncio.sleep(seconds)
    note("e", number)


_loop = asyncio.new_event_loop()


def send(number: int, seconds: float, delay_s: float) -> None:
    """Publish one task; raises what the library raises. Not all of these brokers have delays."""
    assert not delay_s, "the brokers of taskiq-redis have none"
    if number == 0:
        _loop.run_until_complete(broker.startup())
    _loop.run_until_complete(work.kiq(number, seconds))
