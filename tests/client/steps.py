"""What tests of the client do again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fake_server import FakeServer

import minibroker


async def settle_loop() -> None:
    """Let everything run that can run now."""
    for _ in range(8):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    async with asyncio.timeout(20):
        for _ in iter(condition, True):
            await asyncio.sleep(0)


def settled(server: FakeServer, op: str) -> list[int]:
    """Return the sequences for which `op` was applied, in order."""
    return [sequence for name, *_, sequence in server.settled if name == op]


def fill(server: FakeServer, count: int) -> None:
    """Put messages with the bodies 0, 1, ... into the queue."""
    queue = server.queue("q")
    for _ in range(count):
        sequence = queue.next_sequence
        queue.ready.append((sequence, b"", b"%d" % sequence, 0, ""))
        queue.next_sequence += 1


async def consume_one(broker: minibroker.Broker) -> minibroker.Message[Any]:
    [message] = await broker.queue("q").receive(1)
    return message
