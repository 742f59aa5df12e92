"""The job for `taskiq worker`, over a stream of Redis (acked), a list of Redis (no ack), or minibroker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator

from benchmarks.workers.tally import note_latency, tally
from taskiq import AsyncBroker, BrokerMessage
from taskiq_redis import ListQueueBroker, RedisStreamBroker


class Silent(AsyncBroker):
    """A broker on which nothing ever comes: what an idle worker costs of itself."""

    async def kick(self, message: BrokerMessage) -> None:
        """Forget it."""

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """Wait for ever."""
        await asyncio.Event().wait()
        yield b""


url = os.environ["BENCH_URL"]
broker: AsyncBroker
if url.startswith("minibroker"):
    from minibroker.contrib.taskiq import MinibrokerBroker

    broker = MinibrokerBroker(url, settings={"durability": os.environ["BENCH_DURABILITY"]})
elif url == "nothing":
    broker = Silent()
else:
    broker = (ListQueueBroker if os.environ.get("BENCH_LIST") else RedisStreamBroker)(url)
done = tally().done
AT_A_TIME = 20


@broker.task
async def noop(body: str) -> None:
    """Do nothing."""
    done()


@broker.task
async def late(sent: float) -> None:
    """Note how long ago this was sent."""
    note_latency(sent)


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
