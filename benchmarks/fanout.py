"""`make bench-fanout`: messages through a topic exchange to 1, 3 and 10 queues, beside RabbitMQ.

    make bench-fanout
    python -m benchmarks.fanout --pairs 5

1,000 tasks publish 100 bytes each with a routing key, one at a time, and await each confirm: durable queues and
persistent messages there, `sync` here. Both brokers are fresh and run in turn; each ratio is of one pair. Beside
it stands what minibroker writes to its log for a message.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final
from urllib.request import urlopen

import uvloop
from benchmarks.gauges import SyncGauge
from benchmarks.peers.client import in_tasks
from benchmarks.peers.servers import MinibrokerServer, RabbitServer, Server
from benchmarks.processes import free_port

import minibroker

QUEUES: Final = (1, 3, 10)
TASKS: Final = 1_000
BODY: Final = b"x" * 100
KEY: Final = "order.eu.paid"
MESSAGES: Final = {"minibroker": 100_000, "rabbitmq": 5_000}
WARM_UP: Final = 2_000

Publish = Callable[[int], Awaitable[None]]


async def of_minibroker(url: str, queues: int, count: int) -> float:
    """Return messages a second."""
    async with minibroker.connect(url) as broker:
        exchange = broker.exchange("orders")
        await exchange.declare("topic")
        for number in range(queues):
            await exchange.bind(f"queue-{number}", "order.*.paid" if number % 2 else "order.#")
        publish = partial(exchange.publish, BODY, routing_key=KEY)
        return await rate(lambda some: in_tasks(some, TASKS, publish), count)


async def of_rabbitmq(url: str, queues: int, count: int) -> float:
    """Return messages a second."""
    import aio_pika

    connection = await aio_pika.connect(url.replace("amqp://", "amqp://guest:guest@"), timeout=10)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.declare_exchange("orders", "topic", durable=True)
        for number in range(queues):
            queue = await channel.declare_queue(f"queue-{number}", durable=True)
            await queue.bind(exchange, "order.*.paid" if number % 2 else "order.#")
        mode = aio_pika.DeliveryMode.PERSISTENT

        async def publish() -> None:
            await exchange.publish(aio_pika.Message(BODY, delivery_mode=mode), KEY)

        return await rate(lambda some: in_tasks(some, TASKS, publish), count)


async def rate(publish: Publish, count: int) -> float:
    """Return messages a second, once it is warm."""
    await publish(WARM_UP)
    started = perf_counter()
    await publish(count)
    return count / (perf_counter() - started)


def written_bytes(page: str) -> int:
    """Return how many bytes minibroker has written to its log."""
    with urlopen(f"{page}/metrics") as answer:
        found = re.search(
            rb"^minibroker_log_written_bytes_total (\S+)$", answer.read(), re.MULTILINE
        )
    assert found
    return int(float(found[1]))


def minibroker_side(folder: Path, queues: int) -> tuple[float, float]:
    """Return the rate, and bytes of the log for a message."""
    page = f"127.0.0.1:{free_port()}"
    count = MESSAGES["minibroker"]
    with running(MinibrokerServer(folder, f"--http {page}")) as server:
        found = uvloop.run(of_minibroker(server.url, queues, count))
        return found, written_bytes(f"http://{page}") / (count + WARM_UP)


def rabbitmq_side(folder: Path, queues: int) -> float:
    """Return the rate."""
    with running(RabbitServer(folder, "classic")) as server:
        return uvloop.run(of_rabbitmq(server.url, queues, MESSAGES["rabbitmq"]))


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Run a server."""
    try:
        server.start()
        yield server
    finally:
        server.close()


def main() -> None:
    """Run all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as made:
        gauge = SyncGauge(Path(made), 4_096)
        gauge.measure(500)
        print(f"fdatasync p50 of 4 KiB: {gauge.p50_us:.0f} us")
        gauge.close()
        for queues in QUEUES:
            ratios, ours, theirs, size = [], [], [], 0.0
            for pair in range(options.pairs):
                own, size = minibroker_side(Path(made) / f"m{queues}-{pair}", queues)
                other = rabbitmq_side(Path(made) / f"r{queues}-{pair}", queues)
                ours.append(own)
                theirs.append(other)
                ratios.append(own / other)
            print(
                f"{queues:>3} queues: minibroker {median(ours):>9,.0f} messages/s, "
                f"RabbitMQ {median(theirs):>7,.0f}, ratio {median(ratios):.1f} "
                f"({min(ratios):.1f} - {max(ratios):.1f}); {size:.0f} bytes of the log a message",
                flush=True,
            )


if __name__ == "__main__":
    main()
