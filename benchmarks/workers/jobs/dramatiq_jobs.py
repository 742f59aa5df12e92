"""The job for `dramatiq`, on Redis, minibroker or nothing: as `def` or `async def` with its AsyncIO middleware."""

from __future__ import annotations

import os

import dramatiq
from benchmarks.workers.tally import note_latency, tally
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware.asyncio import AsyncIO

url = os.environ["BENCH_URL"]
broker: dramatiq.Broker
if url.startswith("minibroker"):
    from minibroker.contrib.dramatiq import MinibrokerBroker

    broker = MinibrokerBroker(url, settings={"durability": os.environ["BENCH_DURABILITY"]})
elif url == "nothing":
    broker = StubBroker()
else:
    broker = RedisBroker(url=url)
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


@dramatiq.actor
def late(sent: float) -> None:
    """Note how long ago this was sent."""
    note_latency(sent)


def publish(count: int, body: str) -> None:
    """Publish `count` jobs."""
    for _ in range(count):
        noop.send(body)
