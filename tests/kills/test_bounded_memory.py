"""A backlog larger than memory: it leaves, comes back in order, is copied forward, and survives a SIGKILL."""

from __future__ import annotations

from pathlib import Path

import minibroker
from support.broker import BrokerServer, StartBroker
from support.log_files import log_bytes

MIB = 1024 * 1024
LIMIT_BYTES = 64 * MIB  # a quarter of it is for messages
SEGMENT_BYTES = MIB
KEPT, BODY_BYTES = 40_000, 1_000
PASSING_ROUNDS, PASSING_MESSAGES = 60, 1_000


def resident_bytes(server: BrokerServer) -> int:
    """Return the resident memory of the broker."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096


def body(number: int) -> bytes:
    """Return the body of one message of the backlog."""
    return b"%08d" % number + b"x" * (BODY_BYTES - 8)


async def pile_up(broker: minibroker.Broker) -> None:
    queue = broker.queue("kept")
    for first in range(0, KEPT, 500):
        await queue.publish_many([body(number) for number in range(first, first + 500)])


async def pass_through(broker: minibroker.Broker) -> None:
    """Publish and ack as much as lies in wait, and more, so that the log is copied forward."""
    queue = broker.queue("passing")
    async with queue.consume(prefetch=PASSING_MESSAGES) as messages:
        for _ in range(PASSING_ROUNDS):
            await queue.publish_many([b"y" * BODY_BYTES] * PASSING_MESSAGES)
            left = PASSING_MESSAGES
            async for message in messages:
                await message.ack()
                left -= 1
                if not left:
                    break


async def drain(broker: minibroker.Broker, expected: list[int]) -> None:
    """Consume everything, each message once and in order."""
    async with broker.queue("kept").consume(prefetch=500) as messages:
        left = iter(expected)
        number = next(left)
        async for message in messages:
            assert message.body == body(number)
            await message.ack()
            if (number := next(left, -1)) < 0:
                break


async def test_a_backlog_beyond_memory_comes_back_whole_and_in_order(
    start_broker: StartBroker,
) -> None:
    flags = ("--memory-limit", str(LIMIT_BYTES), "--segment-bytes", str(SEGMENT_BYTES))
    server = start_broker(*flags)
    async with minibroker.connect(server.url) as broker:
        empty_bytes = resident_bytes(server)
        await pile_up(broker)
        # All of it in memory would take 42 MB and more.
        assert resident_bytes(server) - empty_bytes < 32 * MIB
        await drain(broker, list(range(100)))
        await pass_through(broker)
        live_bytes = (KEPT + PASSING_MESSAGES) * (BODY_BYTES + 60)
        # One of the four may be copied just now.
        assert log_bytes(server.data_dir) <= 2 * live_bytes + 4 * SEGMENT_BYTES
    server.kill()
    server.restart()
    assert resident_bytes(server) - empty_bytes < 32 * MIB
    async with minibroker.connect(server.url) as broker:
        await drain(broker, list(range(100, KEPT)))
        assert (await broker.queue("kept").stats())["queues"]["kept"]["ready"] == 0
