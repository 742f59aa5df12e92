"""`make bench-log`: a retained log beside a Kafka topic of one partition: publish, and three groups that read.

    make bench-log
    KAFKA_HOME=/opt/kafka python -m benchmarks.logs --messages 10000000 --pairs 1

Messages have 100 bytes. Here `publish_many` of 1,000, eight of them under way; there `produce_batch` of 1,000,
of which the producer makes its own batches, and `produce` of each message, as most programs do. Once with a sync
of each batch (`sync`; there `log.flush.interval.messages=1`), once as Kafka comes (`lazy`). Then three groups
read all, each in a process of its own, in batches of 1,000 that are acknowledged as they go, and look at each
body; so there, with the fastest client that Python has (confluent-kafka, 1,000 messages a call), and with that
of asyncio (aiokafka).

Both brokers are fresh, work for a while before the first figure (a JVM compiles what has run often), and run in
turn; each ratio is of one pair. The clock of the readers runs from the first message that one of them has to the
last: the start of a process does not count, nor the joining of a group. Beside each rate is the CPU time of
server and client for a message, which says more than the clock where cores are few; here it has the work of the
archiver in it. What the broker read from files, cached or not, stands beside it (`rchar`).
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
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
WARM: Final = "warm"  # the topic that is worked on before the first figure
WARM_MESSAGES: Final = 100_000
PREFETCH: Final = 4_000


@dataclass
class Figure:
    """Messages a second, and the CPU time of server and client for one, in us."""

    rate: float
    server_us: float
    client_us: float


class Watch:
    """What a reader of three notes: it waits for the others, then when it had its first message and its last."""

    def __init__(self, barrier: Any, told: Any) -> None:
        self._barrier, self._told = barrier, told
        self._began = self._cpu_s = 0.0

    def ready(self) -> None:
        """Return when all readers are connected."""
        self._barrier.wait()

    def got(self) -> None:
        """Note that messages came."""
        if not self._began:
            self._began, self._cpu_s = perf_counter(), process_time()

    def done(self) -> None:
        """Tell that all were read."""
        self._told.put((self._began, perf_counter(), process_time() - self._cpu_s))


Read = Callable[[str, str, str, int, Watch | None], None]


# ---- minibroker ----


async def publish_here(url: str, topic: str, count: int, durability: str) -> float:
    """Return messages a second, until all are confirmed."""
    async with minibroker.connect(url) as broker:
        log: Any = broker.queue(topic, kind="log", durability=durability)
        bodies, left = [BODY] * BATCH, iter(range(count // BATCH))

        async def one() -> None:
            for _ in left:
                await log.publish_many(bodies)

        started = perf_counter()
        await asyncio.gather(*(one() for _ in range(UNDER_WAY)))
        return count / (perf_counter() - started)


async def archived(url: str, topic: str, count: int) -> None:
    """Return when all is in the files."""
    async with minibroker.connect(url) as broker:
        await broker.log(topic).read(count - 1, wait=60)


async def forget(url: str, topic: str) -> None:
    """Delete a log: what makes its files smaller would read them while others are measured."""
    async with minibroker.connect(url) as broker:
        await broker.queue(topic).delete(force=True)


async def group_here(url: str, topic: str, group: str, count: int, watch: Watch | None) -> None:
    """Read all as one group."""
    async with minibroker.connect(url) as broker:
        if watch is not None:
            watch.ready()
        await broker.log(topic).declare_group(group)
        async with broker.queue(f"{topic}@{group}").consume(prefetch=PREFETCH) as messages:
            async for batch in messages.batches(BATCH):
                if watch is not None:
                    watch.got()
                count -= sum(message.body is not None for message in batch)
                await batch.ack()
                if count <= 0:
                    break
        if watch is not None:
            watch.done()


async def reader_here(url: str, count: int) -> float:
    """Return messages a second of one reader without a group."""
    async with minibroker.connect(url) as broker:
        log, start, seen = broker.log(TOPIC), 0, 0
        started = perf_counter()
        while seen < count:
            page = await log.read(start)
            start, seen = page.next, seen + len(page)
        return count / (perf_counter() - started)


def run_group_here(url: str, topic: str, group: str, count: int, watch: Watch | None) -> None:
    """Read all as one group, in a process of its own."""
    uvloop.run(group_here(url, topic, group, count, watch))


# ---- Kafka ----


def publish_there(url: str, topic: str, count: int, *, at_once: bool) -> float:
    """Return messages a second, until all are acknowledged; given in batches, or one by one."""
    from confluent_kafka import Producer

    producer: Any = Producer({"bootstrap.servers": url, "acks": "all", "linger.ms": 5})
    started = perf_counter()
    for _ in range(count // BATCH):
        if at_once:
            left = [{"value": BODY} for _ in range(BATCH)]
            while left := left[producer.produce_batch(topic, left) :]:
                producer.poll(0.01)
        else:
            for _ in range(BATCH):
                _produce(producer, topic)
        producer.poll(0)
    producer.flush()
    return count / (perf_counter() - started)


def _produce(producer: Any, topic: str) -> None:
    while True:
        try:
            producer.produce(topic, BODY)
            return
        except BufferError:
            producer.poll(0.01)


def run_group_there(url: str, topic: str, group: str, count: int, watch: Watch | None) -> None:
    """Read all as one group with confluent-kafka, and commit as it goes."""
    from confluent_kafka import Consumer

    settings = {"bootstrap.servers": url, "group.id": group, "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    if watch is not None:
        watch.ready()
    consumer.subscribe([topic])
    while count > 0:
        batch = consumer.consume(BATCH, timeout=1.0)
        if batch and watch is not None:
            watch.got()
        count -= sum(message.value() is not None for message in batch)
    if watch is not None:
        watch.done()
    consumer.close()


async def group_there(url: str, topic: str, group: str, count: int, watch: Watch | None) -> None:
    """Read all as one group with aiokafka, and commit as it goes."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=url, group_id=group, auto_offset_reset="earliest"
    )
    if watch is not None:
        watch.ready()
    await consumer.start()
    async for message in consumer:
        if watch is not None:
            watch.got()
        count -= message.value is not None
        if not count:
            break
    if watch is not None:
        watch.done()
    await consumer.stop()


def run_asyncio_group_there(
    url: str, topic: str, group: str, count: int, watch: Watch | None
) -> None:
    """Read all as one group with aiokafka, in a process of its own."""
    uvloop.run(group_there(url, topic, f"{group}-asyncio", count, watch))


# ---- both ----


def one_group(read: Read, url: str, topic: str, group: str, count: int, *more: Any) -> None:
    """Read in a process of its own; `more` is what its watch is made of."""
    read(url, topic, group, count, Watch(*more) if more else None)


def three_groups(read: Read, server: Server, url: str, count: int) -> Figure:
    """Return what three groups together do."""
    spawn = multiprocessing.get_context("spawn")
    barrier, told = spawn.Barrier(len(GROUPS) + 1), spawn.Queue()
    workers = [
        spawn.Process(target=one_group, args=(read, url, TOPIC, group, count, barrier, told))
        for group in GROUPS
    ]
    for worker in workers:
        worker.start()
    barrier.wait(60)
    before_s = server.cpu_s()
    found = [told.get(timeout=600) for _ in workers]
    server_s = server.cpu_s() - before_s
    for worker in workers:
        worker.join()
    assert not any(worker.exitcode for worker in workers), "a reader failed"
    total = len(GROUPS) * count
    began, ended = min(each[0] for each in found), max(each[1] for each in found)
    client_s = sum(each[2] for each in found)
    return Figure(total / (ended - began), 1e6 * server_s / total, 1e6 * client_s / total)


def published(server: Server, count: int, publish: Callable[[], float], rest: Any = None) -> Figure:
    """Return what publishing does; `rest` is what the server does later of it."""
    server_s, client_s = server.cpu_s(), process_time()
    rate = publish()
    client_s = process_time() - client_s
    if rest is not None:
        rest()
    return Figure(rate, 1e6 * (server.cpu_s() - server_s) / count, 1e6 * client_s / count)


def warm_up(
    server: Server, publish: Callable[[int], object], read: Callable[[str], object]
) -> None:
    """Publish and read for as long as the server needs before its first figure."""
    ends, turn = perf_counter() + server.warm_up_s, 0
    while perf_counter() < ends:
        publish(WARM_MESSAGES)
        read(f"group-{turn}")
        turn += 1


def read_bytes(server: Server) -> int:
    """Return how many bytes a server has read from files, of the disk or of the page cache."""
    assert server.process is not None
    page = Path(f"/proc/{server.process.pid}/io").read_text()
    return int(page.split("rchar: ")[1].split()[0])


def here(folder: Path, count: int, durability: str) -> tuple[dict[str, Figure], float, float]:
    """Return the figures of minibroker, the rate of a reader, and the bytes read for a message of three groups."""
    with running(MinibrokerServer(folder, "")) as server:
        url = server.url
        warm_up(
            server,
            lambda some: uvloop.run(publish_here(url, WARM, some, durability)),
            lambda group: run_group_here(url, WARM, group, WARM_MESSAGES, None),
        )
        uvloop.run(forget(url, WARM))
        found = {
            "publish": published(
                server,
                count,
                lambda: uvloop.run(publish_here(url, TOPIC, count, durability)),
                lambda: uvloop.run(archived(url, TOPIC, count)),
            )
        }
        before = read_bytes(server)
        found["three groups"] = three_groups(run_group_here, server, url, count)
        size = (read_bytes(server) - before) / count
        return found, uvloop.run(reader_here(url, count)), size


def there(folder: Path, count: int, option: str) -> dict[str, Figure]:
    """Return the figures of Kafka."""
    with running(KafkaServer(folder, option)) as server:
        url = server.url.partition("://")[2]
        warm_up(
            server,
            lambda some: publish_there(url, WARM, some, at_once=True),
            lambda group: run_group_there(url, WARM, group, WARM_MESSAGES, None),
        )
        found = {
            "publish": published(
                server, count, lambda: publish_there(url, TOPIC, count, at_once=True)
            ),
            "one by one": published(
                server, count, lambda: publish_there(url, "others", count, at_once=False)
            ),
        }
        found["three groups"] = three_groups(run_group_there, server, url, count)
        found["aiokafka"] = three_groups(run_asyncio_group_there, server, url, count // 4)
        return found


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Run a server."""
    try:
        server.start()
        yield server
    finally:
        server.close()


def said(pairs: list[tuple[Figure, Figure]]) -> str:
    """Return the medians of both, and the ratios."""
    ratios = [own.rate / other.rate for own, other in pairs]
    spread = f"({min(ratios):.2f} - {max(ratios):.2f})"
    ours, theirs = (told([pair[at] for pair in pairs]) for at in (0, 1))
    return f"minibroker {ours}, Kafka {theirs}, ratio {median(ratios):.2f} {spread}"


def told(figures: list[Figure]) -> str:
    """Return the medians: a rate, and the CPU time of server and client."""
    rate = median(each.rate for each in figures)
    server, client = (
        median(each.server_us for each in figures),
        median(each.client_us for each in figures),
    )
    return f"{rate:>9,.0f}/s ({server:.2f} + {client:.2f} us)"


# Each row of Kafka, and the one of minibroker that it is beside.
ROWS: Final = (
    ("publish", "publish"),
    ("one by one", "publish"),
    ("three groups", "three groups"),
    ("aiokafka", "three groups"),
)


def main() -> None:
    """Run all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", choices=("sync", "lazy"))
    options = parser.parse_args()
    count = options.messages // BATCH * BATCH
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as made:
        gauge = SyncGauge(Path(made), 4_096)
        gauge.measure(500)
        print(f"fdatasync p50 of 4 KiB: {gauge.p50_us:.0f} us; {count:,} messages of 100 bytes")
        gauge.close()
        for durability, option in (("sync", "1"), ("lazy", "")):
            if options.only not in (None, durability):
                continue
            pairs, others = [], []
            for pair in range(options.pairs):
                ours, *more = here(Path(made) / f"m{durability}{pair}", count, durability)
                pairs.append((ours, there(Path(made) / f"k{durability}{pair}", count, option)))
                others.append(more)
            print(
                f"{durability}, beside Kafka with {option or 'no'} flush.messages (us of server + client):"
            )
            for row, own in ROWS:
                print(f"  {row:<13}", said([(ours[own], theirs[row]) for ours, theirs in pairs]))
            reads, sizes = zip(*others, strict=True)
            print(
                f"  one reader {median(reads):,.0f}/s; {median(sizes):.0f} bytes read a message by three groups",
                flush=True,
            )


if __name__ == "__main__":
    main()
