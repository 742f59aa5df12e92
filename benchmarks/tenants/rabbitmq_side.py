"""The side of RabbitMQ: a queue for each tenant, a classic one for priorities (3.10: quorum queues have none)."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import aio_pika

QUEUES: dict[str, dict[str, Any] | None] = {
    "big": None,
    "small": None,
    "limited": None,
    "free": None,
    "jobs": {"x-max-priority": 9},
}
# What is added: how many, the queue, and the priority (9 is the highest).
ADD = {
    "big": (200, "big", 0),
    "small": (10, "small", 0),
    "limited": (30, "limited", 0),
    "free": (30, "free", 0),
    "normal": (100, "jobs", 1),
    "urgent": (1, "jobs", 9),
    "same": (1, "jobs", 1),
}


async def main() -> None:
    """Work, or add."""
    connection = await aio_pika.connect(os.environ["STORY_URL"])
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=1, global_=True)  # one slot over all queues
    queues = {
        name: await channel.declare_queue(name, durable=True, arguments=arguments)
        for name, arguments in QUEUES.items()
    }
    if sys.argv[1] == "add":
        count, routing_key, priority = ADD[sys.argv[2]]
        for _ in range(count):
            message = aio_pika.Message(sys.argv[2].encode(), priority=priority)
            await channel.default_exchange.publish(message, routing_key)
        return

    async def work(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        async with message.process():
            tenant = message.body.decode()
            with open(os.environ["STORY_STARTS"], "a") as starts:  # noqa: ASYNC230 - a line
                starts.write(f"{time.time_ns() // 1_000_000} {tenant}\n")
            await asyncio.sleep(8 if tenant == "same" else 0.05)

    for queue in queues.values():
        await queue.consume(work)
    await asyncio.Event().wait()


asyncio.run(main())
