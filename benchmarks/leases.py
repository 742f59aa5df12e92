"""A row of `make scale`: what others notice while very many leases end together."""

from __future__ import annotations

import asyncio
import gc
from itertools import count
from time import perf_counter
from typing import Any

from benchmarks.gauges import percentile
from benchmarks.growth import Broker
from benchmarks.rows import BODY_BYTES

import minibroker
from minibroker.contract import limits, wire

BODY = b"x" * BODY_BYTES
LEASE_MS = 12_000


class Holder(asyncio.Protocol):
    """A connection that begins messages, has all their leases end together, and says no more."""

    def __init__(self) -> None:
        self.runs: list[bytes] = []
        self._reader = wire.FrameReader()
        self._numbers = count(1)
        self._answered: asyncio.Future[wire.Frame] | None = None

    def connection_made(self, transport: Any) -> None:
        """Say hello."""
        self._transport = transport
        hello = {"op": "hello", "protocol": 1, "client": "holder"}
        transport.write(wire.pack_frame({"parts": [hello]}))

    def data_received(self, data: bytes) -> None:
        """Take the answers to receives."""
        for frame in self._reader.feed(data):
            if frame.header["op"] == "deliver" and self._answered is not None:
                self._answered.set_result(frame)

    async def receive(self, queue: str) -> int:
        """Begin up to 1,000 messages; return how many."""
        self._answered = asyncio.get_running_loop().create_future()
        most = limits.MAX_MESSAGES_PER_FRAME
        part = {"op": "receive", "queue": queue, "count": most, "wait_ms": 5_000}
        self._transport.write(wire.pack_frame({"parts": [part], "request": next(self._numbers)}))
        frame = await self._answered
        token = frame.header["token"]
        entries = list(wire.DELIVERY_RUN.iter_unpack(frame.columns))
        runs = [(token, origin, first, some) for origin, first, some, *_ in entries]
        self.runs.append(wire.pack_runs(runs))
        return sum(run[3] for run in runs)

    def end_together(self, queue: str) -> None:
        """Let every lease begin anew, within milliseconds."""
        for column in self.runs:
            runs = len(column) // wire.RUN.size
            part = {"op": "extend", "queue": queue, "runs": runs, "lease_ms": LEASE_MS}
            header = {"parts": [part], "request": next(self._numbers)}
            self._transport.write(wire.pack_frame(header, column))


async def leases(broker: Broker, scale: int) -> str:
    """200,000 leases that end together: until when all are back, and what a publish elsewhere takes."""
    messages = 200_000 // scale
    loop = asyncio.get_running_loop()
    host, port = broker.url.removeprefix("minibroker://").split(":")
    async with minibroker.connect(broker.url) as client, minibroker.connect(broker.url) as other:
        queue, quiet = client.queue("many"), other.queue("quiet")
        await queue.set(lease_ms=60_000)
        for _ in range(messages // 1_000):
            await queue.publish_many([BODY] * 1_000)
        _, holder = await loop.create_connection(Holder, host, int(port))
        begun = 0
        while begun < messages:
            begun += await holder.receive("many")
        await quiet.publish(BODY)
        holder.end_together("many")
        due_s = perf_counter() + LEASE_MS / 1_000
        gc.collect()
        gc.disable()  # a pause of this process is not one of the broker
        before = await publishes(quiet, due_s - 2.5, due_s - 0.5)
        looking = asyncio.create_task(until_back(queue, messages))
        during = await publishes(quiet, due_s - 0.2, due_s + 2.5)
        back_s = await looking - due_s
        gc.enable()
    told = f"before {told_of(before)} during {told_of(during)}"
    return f"leases={messages} all_back_s={back_s:.2f} publish elsewhere, ms: {told}"


def told_of(took: list[float]) -> str:
    """Return the figures of durations, in ms."""
    p50, p99, longest = (
        value * 1e3 for value in (percentile(took, 50), percentile(took, 99), max(took))
    )
    return f"p50={p50:.1f} p99={p99:.1f} max={longest:.1f}"


async def publishes(queue: Any, since_s: float, until_s: float) -> list[float]:
    """Return how long each publish took, one at a time, between two moments."""
    await asyncio.sleep(max(since_s - perf_counter(), 0))
    took = []
    while (before := perf_counter()) < until_s:
        await queue.publish(BODY)
        took.append(perf_counter() - before)
        await asyncio.sleep(0.001)
    return took


async def until_back(queue: Any, messages: int) -> float:
    """Return when all messages are ready again; that happens in another process, so it has to be asked for."""
    while (await queue.stats())["queues"]["many"]["ready"] < messages:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return perf_counter()
