"""The client process of one side: it reads orders, a JSON object a line, and answers each with one.

Bodies are made before the clock starts. What fills or empties the queue is an order of its own, so the time
and the CPU of every phase stand alone.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter, sleep
from typing import Any, cast

import uvloop
from benchmarks.peers.client import Blocking, Client, make

Order = dict[str, Any]
Measured = dict[str, Any]
STAMP = struct.Struct("<d")


async def one(client: Client, order: Order) -> Measured:
    """Publish one after the other and note how long each call took."""
    body, calls = b"x" * order["body"], []
    for _ in range(order["count"]):
        before = perf_counter()
        await client.publish(body)
        calls.append((perf_counter() - before) * 1e6)
    return {"calls": calls}


async def one_blocking(client: Client, order: Order) -> Measured:
    """The same through a client that blocks: the loop has nothing else to do meanwhile."""
    publish, body, calls = cast(Blocking, client).blocking(), b"x" * order["body"], []
    for _ in range(order["count"]):
        before = perf_counter()
        publish(body)
        calls.append((perf_counter() - before) * 1e6)
    return {"calls": calls}


async def tasks(client: Client, order: Order) -> Measured:
    """Publish message by message, as many at a time as the window says."""
    await client.publish_single(b"x" * order["body"], order["count"], order["window"])
    return {}


async def batches(client: Client, order: Order) -> Measured:
    """Publish in batches."""
    body = b"x" * order["body"]
    await client.publish_batches(body, order["count"], order["batch"], order["window"])
    return {}


async def consume(client: Client, order: Order) -> Measured:
    """Consume what is there and read every body."""
    read_bytes = 0

    def seen(body: bytes) -> None:
        nonlocal read_bytes
        read_bytes += len(body)

    await client.consume(order["count"], order["prefetch"], order["many"], seen)
    assert read_bytes == order["count"] * order["body"], "some bodies are not what was published"
    return {}


async def latency(client: Client, order: Order) -> Measured:
    """Publish at a fixed rate, whatever the answers do; note when each body is seen."""
    count, calls = order["count"], []

    def seen(body: bytes) -> None:
        calls.append((perf_counter() - STAMP.unpack_from(body)[0]) * 1e6)

    async with asyncio.TaskGroup() as group:
        group.create_task(client.consume(count, order["prefetch"], False, seen))

        def publish(due: float) -> None:
            # The time at which it was due, not that at which this loop came to it: a client that
            # holds its own loop up must not shorten its latencies by that.
            body = STAMP.pack(due) + bytes(order["body"] - STAMP.size)
            group.create_task(client.publish(body))

        await in_time(count, order["rate"], publish)
    return {"calls": calls}


async def cycle(client: Client, order: Order) -> Measured:
    """Publish the next message once the one before it was seen; note how long each took until then."""
    loop, body, calls = asyncio.get_running_loop(), b"x" * order["body"], []
    arrived = asyncio.Event()

    def seen(body: bytes) -> None:  # in a thread, where the client of a peer has some
        loop.call_soon_threadsafe(arrived.set)

    async with asyncio.TaskGroup() as group:
        group.create_task(client.consume(order["count"], order["prefetch"], False, seen))
        for _ in range(order["count"]):
            before = perf_counter()
            await client.publish(body)
            await arrived.wait()
            calls.append((perf_counter() - before) * 1e6)
            arrived.clear()
    return {"calls": calls}


async def in_time(count: int, rate: float, call: Callable[[float], None]) -> None:
    """Have `call(due)` called on this loop, `rate` times a second.

    A thread keeps the time: the timers of the loop are whole milliseconds, more than what is measured.
    """
    loop = asyncio.get_running_loop()

    def tick() -> None:
        started = perf_counter()
        for index in range(count):
            due = started + index / rate
            sleep(max(0.0, due - perf_counter()))
            loop.call_soon_threadsafe(call, due)

    await loop.run_in_executor(None, tick)


async def purge(client: Client, order: Order) -> Measured:
    """Empty the queue."""
    await client.purge()
    return {}


async def waiting(client: Client, order: Order) -> Measured:
    """Say what waits, and what the server says about its memory."""
    return {"waiting": await client.waiting(), "server_bytes": await client.server_bytes()}


ORDERS: dict[str, Callable[[Client, Order], Awaitable[Measured]]] = {
    each.__name__: each
    for each in (one, one_blocking, tasks, batches, consume, latency, cycle, purge, waiting)
}


async def serve(client: Client) -> None:
    """Do what each line of standard input says, until there is none."""
    loop = asyncio.get_running_loop()
    await client.open()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        started = perf_counter()
        measured = await ORDERS[order["do"]](client, order)
        measured["seconds"] = perf_counter() - started
        print(json.dumps(measured), flush=True)
    await client.close()


if __name__ == "__main__":
    uvloop.run(serve(make(*sys.argv[1:4])))
