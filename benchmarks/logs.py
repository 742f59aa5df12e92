"""`make bench-log`: a retained log beside a Kafka topic of one partition: publish, and three groups that read.

    make bench-log
    KAFKA_HOME=/opt/kafka python -m benchmarks.logs --messages 10000000 --pairs 1

Messages have 100 bytes. Here `publish_many` of 1,000, eight of them under way; there a producer that is given all
of them, batches by itself, and is flushed. Once with a sync of each batch (`sync`; there
`log.flush.interval.messages=1`), once as Kafka comes (`lazy`). Then three groups read all, each in a process of
its own, in batches of 1,000 that are acknowledged as they go; so there, with the fastest client that Python has
(confluent-kafka, 1,000 messages a call), and with the one of asyncio (aiokafka). Both brokers are fresh and run in
turn; each ratio is of one pair. What the broker read from files, cached or not, stands beside it (`rchar`).
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import uvloop
from benchmarks.gauges import SyncGauge
from benchmarks.peers.servers import KafkaServer, MinibrokerServer, Server

import minibroker

BODY: Final = b"x" * 100
BATCH: Final = 1_000
UNDER_WAY: Final = 8
GROUPS: Final = ("billing", "search", "audit")
TOPIC: Final = "events"
PREFETCH: Final = 4_000


# ---- minibroker ----


async def publish_here(url: str, count: int, durability: str) -> float:
    """Return messages a second, until all are confirmed."""
    async with minibroker.connect(url) as broker:
        log: Any = broker.queue(TOPIC, kind="log", durability=durability)
        bodies, left = [BODY] * BATCH, iter(range(count // BATCH))

        async def one() -> None:
            for _ in left:
                await log.publish_many(bodies)

        await log.publish_many(bodies)
        started = perf_counter()
        await asyncio.gather(*(one() for _ in range(UNDER_WAY)))
        return count / (perf_counter() - started)


async def archived(url: str, count: int) -> None:
    """Return when all is in the files."""
    async with minibroker.connect(url) as broker:
        await broker.log(TOPIC).read(count - 1, wait=60)


async def make_groups(url: str) -> None:
    """Make the groups, which begin to be filled."""
    async with minibroker.connect(url) as broker:
        for group in GROUPS:
            await broker.log(TOPIC).declare_group(group)


async def group_here(url: str, group: str, count: int) -> None:
    """Read all as one group."""
    async with (
        minibroker.connect(url) as broker,
        broker.queue(f"{TOPIC}@{group}").consume(prefetch=PREFETCH) as messages,
    ):
        async for batch in messages.batches(BATCH):
            await batch.ack()
            count -= len(batch)
            if count <= 0:
                break


async def reader_here(url: str, count: int) -> float:
    """Return messages a second of one reader without a group."""
    async with minibroker.connect(url) as broker:
        log, start, seen = broker.log(TOPIC), 0, 0
        started = perf_counter()
        while seen < count:
            page = await log.read(start)
            start, seen = page.next, seen + len(page)
        return count / (perf_counter() - started)


def run_group_here(url: str, group: str, count: int) -> None:
    """Read all as one group, in a process of its own."""
    uvloop.run(group_here(url, group, count))


# ---- Kafka ----


def publish_there(url: str, count: int) -> float:
    """Return messages a second, until all are acknowledged."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": url, "acks": "all", "linger.ms": 5})

    def some(most: int) -> None:
        for number in range(most):
            while True:
                try:
                    producer.produce(TOPIC, BODY)
                    break
                except BufferError:
                    producer.poll(0.01)
            if not number % BATCH:
                producer.poll(0)
        producer.flush()

    some(10 * BATCH)
    started = perf_counter()
    some(count)
    return count / (perf_counter() - started)


def run_group_there(url: str, group: str, count: int) -> None:
    """Read all as one group with confluent-kafka, and commit as it goes."""
    from confluent_kafka import Consumer

    settings = {"bootstrap.servers": url, "group.id": group, "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.subscribe([TOPIC])
    while count > 0:
        for message in consumer.consume(BATCH, timeout=1.0):
            if message.value() is not None:
                count -= 1
    consumer.close()


async def group_there(url: str, group: str, count: int) -> None:
    """Read all as one group with aiokafka, and commit as it goes."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        TOPIC, bootstrap_servers=url, group_id=group, auto_offset_reset="earliest"
    )
    await consumer.start()
    async for _ in consumer:
        count -= 1
        if not count:
            break
    await consumer.stop()


def run_asyncio_group_there(url: str, group: str, count: int) -> None:
    """Read all as one group with aiokafka, in a process of its own."""
    uvloop.run(group_there(url, f"{group}-asyncio", count))


# ---- both ----


def three_groups(read: Callable[[str, str, int], None], url: str, count: int) -> float:
    """Return messages a second of three groups together."""
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=read, args=(url, group, count)) for group in GROUPS]
    started = perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not any(worker.exitcode for worker in workers), "a reader failed"
    return len(GROUPS) * count / (perf_counter() - started)


def read_bytes(server: Server) -> int:
    """Return how many bytes a server has read from files, of the disk or of the page cache."""
    assert server.process is not None
    page = Path(f"/proc/{server.process.pid}/io").read_text()
    return int(page.split("rchar: ")[1].split()[0])


def here(folder: Path, count: int, durability: str) -> dict[str, float]:
    """Return the figures of minibroker."""
    with running(MinibrokerServer(folder, "")) as server:
        found = {"publish": uvloop.run(publish_here(server.url, count, durability))}
        uvloop.run(archived(server.url, count))
        before = read_bytes(server)
        uvloop.run(make_groups(server.url))
        found["three groups"] = three_groups(run_group_here, server.url, count)
        found["read"] = (read_bytes(server) - before) / count
        found["reader"] = uvloop.run(reader_here(server.url, count))
        return found


def there(folder: Path, count: int, option: str) -> dict[str, float]:
    """Return the figures of Kafka."""
    with running(KafkaServer(folder, option)) as server:
        url = server.url.partition("://")[2]
        found = {"publish": publish_there(url, count)}
        found["three groups"] = three_groups(run_group_there, url, count)
        found["asyncio"] = three_groups(run_asyncio_group_there, url, count // 4)
        return found


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Run a server."""
    try:
        server.start()
        yield server
    finally:
        server.close()


def said(pairs: list[tuple[float, float]]) -> str:
    """Return the medians of both, and the ratios."""
    ratios = [own / other for own, other in pairs]
    ours, theirs = (median(each[at] for each in pairs) for at in (0, 1))
    spread = f"({min(ratios):.2f} - {max(ratios):.2f})"
    return (
        f"minibroker {ours:>9,.0f}/s, Kafka {theirs:>9,.0f}/s, ratio {median(ratios):.2f} {spread}"
    )


def main() -> None:
    """Run all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    count = options.messages // BATCH * BATCH
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as made:
        gauge = SyncGauge(Path(made), 4_096)
        gauge.measure(500)
        print(f"fdatasync p50 of 4 KiB: {gauge.p50_us:.0f} us; {count:,} messages of 100 bytes")
        gauge.close()
        for durability, option in (("sync", "1"), ("lazy", "")):
            some = count if durability == "lazy" else count // 4
            pairs = []
            for pair in range(options.pairs):
                own = here(Path(made) / f"m{durability}{pair}", some, durability)
                pairs.append((own, there(Path(made) / f"k{durability}{pair}", some, option)))
            print(f"{durability}, beside Kafka with {option or 'no'} flush.messages:")
            for row in ("publish", "three groups"):
                print(f"  {row:<13}", said([(own[row], other[row]) for own, other in pairs]))
            asyncio_rows = [(own["three groups"], other["asyncio"]) for own, other in pairs]
            print(f"  {'... aiokafka':<13}", said(asyncio_rows))
            ours = [own for own, _ in pairs]
            reads, size = (median(own[name] for own in ours) for name in ("reader", "read"))
            print(
                f"  one reader {reads:,.0f}/s; {size:.0f} bytes read a message by three groups",
                flush=True,
            )


if __name__ == "__main__":
    main()
