"""Rows of `make scale` about very many queues, keys and delays: a start, the work beside them, and memory.

Beside each rate stands the CPU time of the server: on a machine with other work that is the figure to compare.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.gauges import percentile
from benchmarks.growth import Broker
from benchmarks.processes import cpu_seconds
from benchmarks.rows import BODY_BYTES
from benchmarks.wide import Filler, delayed, keyed, one_each

import minibroker

BODY = b"x" * BODY_BYTES
SMALL = b"x" * 10
HOUR_MS = 3_600_000
ROUNDS = 50  # of a thousand messages each, in one piece of work
PAIRS = 5


async def starts(broker: Broker, scale: int) -> str:
    """A start on 20,000 and on 100,000 queues of one message: after SIGKILL, and after a clean stop."""
    figures, made = [], 0
    for count in (20_000 // scale, 100_000 // scale):
        await asyncio.to_thread(fill_all, broker, one_each(_names("queue", made, count), BODY))
        made = count
        for stop in (broker.kill, broker.stop):
            stop()
            broker.start()
            ready_s = await asyncio.to_thread(until_listening, broker)
            used_s = cpu_seconds(broker.process.pid)
            how = "killed" if stop == broker.kill else "stopped"
            figures.append(f"queues={count} {how}: ready_s={ready_s:.2f} cpu_s={used_s:.2f}")
    return "; ".join(figures)


async def beside_delays(broker: Broker, scale: int) -> str:
    """Work beside 300,000 delayed messages, in times of the work without them."""
    frames = delayed("waiting", (HOUR_MS + n for n in range(300_000 // scale)), SMALL)
    return await beside(broker, frames)


async def beside_keys(broker: Broker, scale: int) -> str:
    """Work beside 300,000 messages of a key each, in times of the work without them."""
    return await beside(broker, keyed("waiting", _names("key", 0, 300_000 // scale), SMALL))


async def beside_queues(broker: Broker, scale: int) -> str:
    """Work beside 100,000 queues."""
    return await beside(broker, one_each(_names("queue", 0, 100_000 // scale), SMALL))


async def memory(broker: Broker, scale: int) -> str:
    """400,000 keys and as many delays at a limit of 64 MiB; then, in a new broker, 100,000 keys drained."""
    limit_mib, count = 64, 400_000 // scale
    anew(broker, ["--memory-limit", f"{limit_mib}MiB"])
    begin_mib = await asyncio.to_thread(settled_mib, broker)
    refused = {}
    most_mib = 0.0
    for frames in (
        keyed("keys", _names("key", 0, count), SMALL),
        delayed("delays", (HOUR_MS + n for n in range(count)), SMALL),
    ):
        with closing(Filler(broker.url)) as filler:
            while some := list(islice(frames, 5_000)):
                await asyncio.to_thread(filler.publish, some)
                most_mib = max(most_mib, broker.resident_mib())
            refused = filler.refused
    anew(broker, ["--memory-limit", f"{limit_mib}MiB"])
    base_mib = await asyncio.to_thread(settled_mib, broker)
    await asyncio.to_thread(
        fill_all, broker, keyed("keys", _names("key", 0, 100_000 // scale), BODY)
    )
    full_mib = broker.resident_mib()
    async with minibroker.connect(broker.url) as client:
        queue = client.queue("keys")
        while (await queue.stats())["queues"]["keys"]["ready"]:
            for message in await queue.receive(1_000, wait=1):
                await message.ack()
    await asyncio.sleep(5)
    return (
        f"limit_mib={limit_mib} begin_mib={begin_mib:.0f} most_mib={most_mib:.0f} refused={refused}; drained: "
        f"begin_mib={base_mib:.0f} full_mib={full_mib:.0f} end_mib={broker.resident_mib():.0f}"
    )


async def beside(broker: Broker, frames: Iterator[tuple[dict[str, Any], bytes, bytes]]) -> str:
    """Measure the work beside what the frames bring, and in a broker without it: in turns, which are compared."""
    without = Broker(broker.folder.with_name(f"{broker.folder.name}-without"), ["--no-http"])
    without.start()
    try:
        await asyncio.to_thread(until_listening, without)
        await asyncio.to_thread(fill_all, broker, frames)
        for each in (
            without,
            broker,
        ):  # a new server has files to make, and a full one to look at what came
            await work(each)
        pairs = [(await work(without), await work(broker)) for _ in range(PAIRS)]
    finally:
        without.kill()
    told = []
    for at, name in enumerate(("per_s", "server_us_each", "ping_p99_ms")):
        ratios = sorted(full[at] / empty[at] for empty, full in pairs)
        ends = f"{ratios[0]:.2f} - {ratios[-1]:.2f}"
        value = median(full[at] for _, full in pairs)
        told.append(f"{name}={value:.3g} ({median(ratios):.2f}, {ends})")
    return f"beside them, and in times of the same without: {' '.join(told)}"


async def work(broker: Broker) -> tuple[float, float, float]:
    """Publish, receive and ack; return (messages a second, us of the server for each, p99 of a question in ms)."""
    took: list[float] = []
    async with minibroker.connect(broker.url) as client, minibroker.connect(broker.url) as other:
        queue, asked = client.queue("worked"), other.queue("asked")
        await asked.set()

        async def ask() -> None:
            while True:
                before = perf_counter()
                await asked.stats()
                took.append((perf_counter() - before) * 1e3)
                await asyncio.sleep(0.002)

        asking = asyncio.create_task(ask())
        started, used_s = perf_counter(), cpu_seconds(broker.process.pid)
        for _ in range(ROUNDS):
            await queue.publish_many([BODY] * 1_000)
            left = 1_000
            while left:
                messages = await queue.receive(1_000, wait=5)
                left -= len(messages)
                for message in messages:
                    await message.ack()
        count, seconds = ROUNDS * 1_000, perf_counter() - started
        used_s = cpu_seconds(broker.process.pid) - used_s
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    return count / seconds, used_s * 1e6 / count, percentile(took, 99)


def fill_all(broker: Broker, frames: Iterator[tuple[dict[str, Any], bytes, bytes]]) -> None:
    """Publish frames through a connection of their own."""
    with closing(Filler(broker.url)) as filler:
        filler.publish(frames)


def anew(broker: Broker, flags: list[str]) -> None:
    """Go on with a server on an empty directory, with other flags."""
    broker.kill()
    broker.flags = flags
    broker.folder = broker.folder.with_name(f"{broker.folder.name}-next")
    broker.start()


def settled_mib(broker: Broker) -> float:
    """Return the resident memory of a server that has just begun to listen."""
    until_listening(broker)
    return broker.resident_mib()


def until_listening(broker: Broker) -> float:
    """Return the seconds until the server takes connections."""
    began_s = perf_counter()
    while True:
        try:
            socket.create_connection(("127.0.0.1", broker.port)).close()
            return perf_counter() - began_s
        except ConnectionRefusedError:
            asyncio.run(asyncio.sleep(0.002))


def _names(kind: str, first: int, stop: int) -> Iterator[str]:
    return (f"{kind}-{number}" for number in range(first, stop))
