"""`consume --exec` passes the standard error of commands on, to whoever reads it or does not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import minibroker
from support.broker import COMMAND, BrokerServer
from support.processes import DEADLINE_S, look_until

MIB = 1024 * 1024
LOUD = f"head -c {3 * MIB} /dev/zero | tr '\\0' x >&2; echo >&2; echo last >&2; exit 1"


async def prepare(url: str, count: int) -> None:
    """Publish so many messages that may fail once."""
    async with minibroker.connect(url) as broker:
        queue = broker.queue("q")
        await queue.set(max_attempts=1)
        await queue.publish_many([b"x"] * count)


async def dead(url: str) -> list[str]:
    """Return the error texts of the dead."""
    async with minibroker.connect(url) as broker:
        found = await broker.queue("q.dlq").peek() if await has_dlq(broker) else []
        return [str(message.history[-1]["error_text"]) for message in found]


async def has_dlq(broker: minibroker.Broker) -> bool:
    """Whether the queue has a DLQ yet."""
    return "q.dlq" in (await broker.stats())["queues"]


def consume(server: BrokerServer, stderr: int, *flags: str) -> subprocess.Popen[bytes]:
    """Start a worker that runs a loud command for each message."""
    command = [*COMMAND, "consume", "q", "--exec", LOUD, "--url", server.url, *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)


def test_commands_go_on_when_nobody_reads_what_they_say(broker_server: BrokerServer) -> None:
    """And the worker stops when it is asked to."""
    asyncio.run(prepare(broker_server.url, 3))
    reader, writer = os.pipe()
    worker = consume(broker_server, writer, "--concurrency", "2")
    try:
        os.close(writer)
        look_until(lambda: len(asyncio.run(dead(broker_server.url))) == 3, worker, "all are dead")
        assert asyncio.run(dead(broker_server.url)) == ["exit code 1: last"] * 3
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(DEADLINE_S) == 0
    finally:
        worker.kill()
        worker.wait()
        os.close(reader)


def test_a_slow_reader_gets_all_of_it(broker_server: BrokerServer) -> None:
    """More than waits in between: it is the command that waits."""
    asyncio.run(prepare(broker_server.url, 2))
    reader, writer = os.pipe()
    worker = consume(broker_server, writer, "--count", "2")
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read()
    assert worker.wait(DEADLINE_S) == 0
    assert said.count(b"x") >= 6 * MIB
    assert said.count(b"last\n") >= 2
    assert b"nobody read" not in said
