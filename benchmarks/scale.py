"""`make scale`: what stays flat as the broker fills: receive, timers, connections, pauses, queues.

    make scale                                   all rows
    python -m benchmarks.scale depth pauses --quick

Each row starts a broker of its own and ends in one line of figures; the sync gauge and the pure-Python loop of the
same minute stand before each.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import shutil
import struct
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.client import run_on
from benchmarks.crowds import beside_delays, beside_keys, beside_queues, memory, starts
from benchmarks.gauges import LoopGauge, SyncGauge, percentile
from benchmarks.growth import Broker, fill
from benchmarks.leases import leases
from benchmarks.processes import cpu_seconds
from benchmarks.rows import BODY_BYTES

import minibroker
from minibroker.contract import wire

BODY = b"x" * BODY_BYTES
HEARTBEAT_S = 15


# -- receive, however much waits --------------------------------------------------------------------


async def time_receives(queue: Any, count: int) -> list[float]:
    """Return how long each receive of one message took; each is acked and published again."""
    took = []
    for _ in range(count):
        before = perf_counter()
        (message,) = await queue.receive(wait=10)
        took.append(perf_counter() - before)
        await message.ack(confirmed=True)
        await queue.publish(BODY)
    return took


async def depth(broker: Broker, scale: int) -> str:
    """Receive p50 with 100 messages, with a million, and with 100,000 keys; in turns."""
    async with minibroker.connect(broker.url) as client:
        shallow, deep, keyed = (client.queue(name) for name in ("shallow", "deep", "keyed"))
        await shallow.publish_many([BODY] * 100)
        for _ in range(1_000_000 // scale // 500):
            await deep.publish_many([BODY] * 500)
        for first in range(0, 100_000 // scale, 1_000):
            await asyncio.gather(
                *(keyed.publish(BODY, key=f"key-{first + at}") for at in range(1_000))
            )
        took: dict[str, list[float]] = {"shallow": [], "deep": [], "keyed": []}
        for _ in range(10):
            for queue in (shallow, deep, keyed):
                took[queue.name] += await time_receives(queue, 100)
    p50_us = {name: median(values) * 1e6 for name, values in took.items()}
    ratios = " ".join(
        f"{name}={p50_us[name] / p50_us['shallow']:.2f}" for name in ("deep", "keyed")
    )
    return f"p50_us={p50_us['shallow']:.0f} of 100 messages; times that: {ratios}"


# -- a million delays -------------------------------------------------------------------------------


async def delays(broker: Broker, scale: int) -> str:
    """A million messages that become ready over 100 s: how late does each come?"""
    messages, over_s, begin_s = 1_000_000 // scale, 100 / min(scale, 10), 40.0
    late_ms: list[float] = []
    async with minibroker.connect(broker.url) as client:
        queue = client.queue("delayed")
        started = perf_counter()
        for first in range(0, messages, 1_000):
            await asyncio.gather(
                *(
                    delayed(queue, started, begin_s + over_s * n / messages)
                    for n in range(first, first + 1_000)
                )
            )
        filled_s = perf_counter() - started
        memory_mib = broker.resident_mib()
        async with queue.consume(prefetch=1_000) as source:
            async for message in source:
                (due,) = struct.unpack("<d", message.body)
                late_ms.append((perf_counter() - due) * 1e3)
                await message.ack()
                if len(late_ms) == messages:
                    break
    return (
        f"messages={messages} over_s={over_s:.0f} filled_s={filled_s:.1f} memory_mib={memory_mib:.0f} "
        f"late_ms: p50={median(late_ms):.1f} p99={percentile(late_ms, 99):.1f} max={max(late_ms):.1f} "
        f"earliest={min(late_ms):.1f}"
    )


async def delayed(queue: Any, started: float, due_s: float) -> None:
    """Publish a message that says when it is due."""
    left_s = started + due_s - perf_counter()
    # A delay is whole milliseconds, counted from where the server takes the message.
    await queue.publish(struct.pack("<d", started + due_s), delay=max(left_s, 0))


# -- idle connections -------------------------------------------------------------------------------


class Idle(asyncio.Protocol):
    """A connection that says hello, and a ping now and then."""

    def connection_made(self, transport: Any) -> None:
        """Say hello."""
        self.transport = transport
        hello = {"op": "hello", "protocol": 1, "client": "idle"}
        transport.write(wire.pack_frame({"parts": [hello]}))

    def ping(self) -> None:
        """Give a sign of life."""
        self.transport.write(wire.pack_frame({"parts": [{"op": "ping"}]}))


async def connections(broker: Broker, scale: int) -> str:
    """What 10,000 connections cost that do nothing: memory each, and a core for their heartbeats."""
    count, watched_s = 10_000 // scale, 2 * HEARTBEAT_S
    loop = asyncio.get_running_loop()
    host, port = broker.url.removeprefix("minibroker://").split(":")
    before_mib = broker.resident_mib()
    idle = []
    for _ in range(count):
        _, protocol = await loop.create_connection(Idle, host, int(port))
        idle.append(protocol)
    await asyncio.sleep(1)
    kib = (broker.resident_mib() - before_mib) * 1024 / count
    used_s, started = cpu_seconds(broker.process.pid), perf_counter()
    for at in range(watched_s * 100):
        for protocol in idle[at % (HEARTBEAT_S * 100) :: HEARTBEAT_S * 100]:
            protocol.ping()
        await asyncio.sleep(max(0, started + (at + 1) / 100 - perf_counter()))
    share = (cpu_seconds(broker.process.pid) - used_s) / (perf_counter() - started)
    for protocol in idle:
        protocol.transport.abort()
    return f"connections={count} kib_each={kib:.1f} core_of_heartbeats={share:.1%}"


# -- pauses -----------------------------------------------------------------------------------------


async def probe(url: str, seconds: float) -> list[float]:
    """Return how long each of many small questions took to be answered, under load."""
    took = []
    async with minibroker.connect(url) as client, minibroker.connect(url) as other:
        asked, load = client.queue("asked"), asyncio.create_task(some_load(other.queue("load")))
        await asked.set()
        await asyncio.sleep(1)
        gc.collect()
        gc.disable()  # a pause of this process is not one of the broker
        end = perf_counter() + seconds
        while perf_counter() < end:
            before = perf_counter()
            await asked.stats()
            took.append(perf_counter() - before)
            await asyncio.sleep(0.001)
        gc.enable()
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    return took


async def some_load(queue: Any) -> None:
    """Publish and consume some thousand messages a second until cancelled."""
    async with queue.consume(prefetch=100) as source:
        while True:
            await queue.publish_many([BODY] * 50)
            left = 50
            async for message in source:
                await message.ack()
                left -= 1
                if not left:
                    break
            await asyncio.sleep(0.01)


async def pauses(broker: Broker, scale: int) -> str:
    """The longest wait for an answer beside an empty broker, and beside a million waiting messages."""
    seconds = 20 / min(scale, 5)
    empty = await probe(broker.url, seconds)
    await asyncio.to_thread(fill, broker.url, 1_000_000 // scale, len(BODY), 100)
    await asyncio.sleep(2)
    full = await probe(broker.url, seconds)
    figures = [
        f"{name}: p50={median(took) * 1e3:.2f} p999={percentile(took, 99.9) * 1e3:.1f} max={max(took) * 1e3:.1f}"
        for name, took in (("empty", empty), ("full", full))
    ]
    return f"answers={len(empty)}+{len(full)} ms {' '.join(figures)}"


# -- many queues ------------------------------------------------------------------------------------


async def queues(broker: Broker, scale: int) -> str:
    """1,000 queues with 10 consumers each: messages a second through all of them, and memory."""
    count, consumers, rounds = 1_000 // min(scale, 10), 10, 20
    before_mib = broker.resident_mib()
    async with minibroker.connect(broker.url) as publisher:
        workers = [minibroker.connect(broker.url) for _ in range(consumers)]
        clients = [await worker.__aenter__() for worker in workers]
        names = [f"queue-{number}" for number in range(count)]
        left = asyncio.Semaphore(0)
        tasks = [
            asyncio.create_task(consume(client.queue(name), left))
            for client in clients
            for name in names
        ]
        await asyncio.gather(*(publisher.queue(name).publish(BODY) for name in names))
        for _ in names:
            await left.acquire()
        memory_mib = broker.resident_mib() - before_mib
        started, used_s = perf_counter(), cpu_seconds(broker.process.pid)
        for _ in range(rounds):
            await asyncio.gather(*(publisher.queue(name).publish(BODY) for name in names))
            for _ in names:
                await left.acquire()
        seconds = perf_counter() - started
        used_us = (cpu_seconds(broker.process.pid) - used_s) * 1e6 / (rounds * count)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in workers:
            await worker.__aexit__(None, None, None)
    return (
        f"queues={count} consumers={count * consumers} memory_mib={memory_mib:.0f} "
        f"per_s={rounds * count / seconds:.0f} server_us_each={used_us:.0f}"
    )


async def consume(queue: Any, done: asyncio.Semaphore) -> None:
    """Ack everything that comes."""
    async with queue.consume(prefetch=1) as source:
        async for message in source:
            await message.ack()
            done.release()


ROWS: dict[str, Callable[[Broker, int], Awaitable[str]]] = {
    row.__name__: row
    for row in (
        *(depth, delays, connections, pauses, queues, leases),
        *(starts, beside_delays, beside_keys, beside_queues, memory),
    )
}


def measure(name: str, scale: int) -> str:
    """Run one row beside its gauges."""
    folder = Path(tempfile.mkdtemp(prefix="minibroker-scale-"))
    sync, count = SyncGauge(folder, 200), LoopGauge()
    sync.measure(300)
    count.measure(0.2)
    sync.close()
    broker = Broker(folder / "data", [])
    broker.start()
    try:
        figures: list[str] = []

        async def row() -> None:
            async with minibroker.connect(broker.url, connect_timeout=20):
                pass
            figures.append(await ROWS[name](broker, scale))

        run_on("uvloop", row())
    finally:
        broker.kill()
        shutil.rmtree(folder)
    gauges = f"sync_p50_us={sync.p50_us:.0f} loop_per_s={count.per_second:.0f}"
    return f"{name}: {figures[0]} ({gauges})"


def main() -> None:
    """Measure the rows that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="a hundredth of everything")
    asked = parser.parse_args()
    if unknown := set(asked.rows) - set(ROWS):
        parser.error(f"no row is called {', '.join(sorted(unknown))}")
    for name in asked.rows or ROWS:
        print(measure(name, 100 if asked.quick else 1), flush=True)


if __name__ == "__main__":
    main()
