"""The client process of a benchmark row: it reads "go" lines and answers each with one JSON line.

Bodies are built before the clock starts. A consuming repetition first fills the queue, untimed; its
time ends when every ack is confirmed. A publishing one ends with its last confirm, then purges, untimed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from time import perf_counter
from typing import Any

from benchmarks.rows import BODY_BYTES, ROWS, Row

import minibroker

FILL_BATCH = 500

Measured = dict[str, Any]


async def publish(queue: Any, row: Row) -> Measured:
    """Publish with `row.calls` calls waiting at any time."""
    calls_each = row.messages // (row.calls * row.batch)
    started = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(row.calls):
            group.create_task(publish_in_turn(queue, row.batch, calls_each))
    return {"seconds": perf_counter() - started, "messages": calls_each * row.calls * row.batch}


async def publish_in_turn(queue: Any, batch: int, calls: int) -> None:
    """Publish `calls` times, each awaited before the next."""
    body = b"x" * BODY_BYTES
    if batch == 1:
        for _ in range(calls):
            await queue.publish(body)
        return
    bodies = [body] * batch
    for _ in range(calls):
        await queue.publish_many(bodies)


async def publish_one_at_a_time(queue: Any, row: Row) -> Measured:
    """Publish one after the other and note how long each call took."""
    body, took = b"x" * BODY_BYTES, []
    started = perf_counter()
    for _ in range(row.messages):
        before = perf_counter()
        await queue.publish(body)
        took.append(perf_counter() - before)
    return {"seconds": perf_counter() - started, "messages": row.messages, "calls": took}


async def fill(queue: Any, row: Row) -> None:
    """Publish what is to be consumed: in batches, or with keys that take turns, put together by the client."""
    body = b"x" * BODY_BYTES
    for at in range(0, row.messages, FILL_BATCH):
        if row.keys:
            names = [f"key-{(at + each) % row.keys}" for each in range(FILL_BATCH)]
            await asyncio.gather(*[queue.publish(body, key=name) for name in names])
        else:
            await queue.publish_many([body] * FILL_BATCH)


async def consume(queue: Any, row: Row) -> Measured:
    """Fill the queue, then consume it: read each body, ack each message."""
    await fill(queue, row)
    left, read_bytes = row.messages, 0
    started = perf_counter()
    async with queue.consume(prefetch=row.prefetch) as messages:
        async for message in messages:
            async with message.process():
                read_bytes += len(message.body)
            left -= 1
            if not left:
                break
    seconds = perf_counter() - started
    assert read_bytes == row.messages * BODY_BYTES, "some bodies were not what was published"
    return {"seconds": seconds, "messages": row.messages}


async def serve(url: str, row: Row) -> None:
    """Run a repetition for every line on standard input."""
    measure = consume if row.prefetch else publish_one_at_a_time if row.max_ratio else publish
    loop = asyncio.get_running_loop()
    async with minibroker.connect(url) as broker:
        queue = broker.queue("bench")
        if row.settings:
            await queue.set(**dict(row.settings))
        while await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await measure(queue, row)), flush=True)
            await queue.purge()


def main() -> None:
    """Run as `python -m benchmarks.client URL ROW LOOP`."""
    url, name, loop = sys.argv[1:4]
    row = next(row for row in ROWS if row.name == name)
    run_on(loop, serve(url, row))


def run_on(loop: str, main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop or asyncio, as named."""
    if loop == "uvloop":
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)


if __name__ == "__main__":
    main()
