"""`make growth`: what a backlog costs in memory and disk, and how long a start takes on it after SIGKILL.

    make growth MESSAGES=1000000 BODY=200 FRAME=1
    python -m benchmarks.growth --messages 5000000 --body 1024 --frame 500 --drain
    make growth PAST=10000000

A real broker is filled through the client, killed, started again, and asked for a message; with `--drain` all is
consumed then. Each line ends with what was measured: resident memory of the server and its CPU time a message,
bytes of its data directory, and the time from exec until it listens, hands a message out, and confirms a publish.
With `--past`, messages that wait see so many others pass, and the most that the log took of the disk is told.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from subprocess import DEVNULL, Popen
from time import perf_counter, sleep
from typing import Any

from benchmarks.processes import COMPILED, clock_seconds, free_port, resident_bytes

import minibroker
from minibroker.contract import wire

QUEUE, OTHER = "backlog", "other"
LEFT_S = 1.5  # until the end of a client is in the log: the next start would wait for it, up to 5 s
WINDOW = 500  # frames that are written before their answers are read
READ_BYTES = 64 * 1024
WINDOW_BYTES = 8 * 1024 * 1024
MIB = 1024 * 1024
WARM_UP = 1_000  # messages that come and go before memory is looked at
SETTLE_S = 3.0  # what a server does right behind the last message is not what a waiting one costs
ROUND = 20_000  # messages that pass before the log is looked at again


class Broker:
    """A server process on a directory and a port that stay the same over its lives."""

    def __init__(self, folder: Path, flags: list[str]) -> None:
        self.port = free_port()
        self.folder = folder
        self.url = f"minibroker://127.0.0.1:{self.port}"
        self.flags = flags

    def start(self) -> None:
        """Start the process; returns before it listens."""
        command = [sys.executable, "-m", "minibrokerd", "serve", "--data-dir", str(self.folder)]
        port = ["--port", str(self.port)]
        env = {**os.environ, **COMPILED}
        self.process = Popen([*command, *port, *self.flags], stdout=DEVNULL, env=env)

    def kill(self) -> None:
        """End the process as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the process in good order."""
        self.process.terminate()
        self.process.wait()

    def resident_mib(self) -> float:
        """Return the resident memory of the process."""
        return resident_bytes(self.process.pid) / MIB

    def cpu_s(self) -> float:
        """Return the CPU time that the process has used."""
        return clock_seconds(self.process.pid)

    def disk_mib(self) -> float:
        """Return what the segments and their indexes take of the disk, the reserve apart."""
        blocks = 0
        for file in self.folder.glob("segment-*"):
            with suppress(FileNotFoundError):  # freed since it was listed
                blocks += file.stat().st_blocks
        return blocks * 512 / MIB


def fill(url: str, messages: int, body_bytes: int, frame: int, queue: str = QUEUE) -> float:
    """Publish in frames of `frame` messages, written as protocol.md says; return messages per second.

    The client would put what is published at the same time into one frame, so the frames are made here.
    """
    host, port = url.removeprefix("minibroker://").split(":")
    lengths, blob = struct.pack("<II", 0, body_bytes) * frame, b"x" * body_bytes * frame
    part = {"op": "publish", "queue": queue, "count": frame}
    started = perf_counter()
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = {"op": "hello", "protocol": 1, "client": "growth"}
        connection.sendall(wire.pack_frame({"parts": [hello]}))
        answers = read_answers(connection)
        assert next(answers)["op"] == "welcome"
        frames, window = -(-messages // frame), max(1, min(WINDOW, WINDOW_BYTES // len(blob)))
        answered = 0
        for first in range(1, frames + 1, window):
            stop = min(first + window, frames + 1)
            connection.sendall(
                b"".join(
                    wire.pack_frame(
                        {"parts": [part], "sequence": n, "answered_below": answered + 1},
                        b"",
                        lengths,
                        blob,
                    )
                    for n in range(first, stop)
                )
            )
            for _ in range(first, stop):
                header = next(answers)
                assert header["op"] == "confirm", header
            answered = stop - 1
    return messages / (perf_counter() - started)


def read_answers(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """Yield the headers of the frames that come, heartbeats apart."""
    reader = wire.FrameReader()
    while data := connection.recv(READ_BYTES):
        for frame in reader.feed(data):
            if frame.header["op"] != "pong":
                yield frame.header


async def restarted(broker: Broker) -> str:
    """Start a broker that was killed; return how long it took, by the clock and by its processor."""
    started = perf_counter()
    broker.start()
    host, port = broker.url.removeprefix("minibroker://").split(":")
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=60):
                break
        except ConnectionRefusedError:
            await asyncio.sleep(0.002)
    said = [f"listens_s={perf_counter() - started:.3f}"]
    said += [f"listens_cpu_s={clock_seconds(broker.process.pid):.3f}"]
    async with minibroker.connect(broker.url) as client:
        message, *_ = await client.queue(QUEUE).receive(wait=60)
        said += [f"first_message_s={perf_counter() - started:.3f}"]
        await client.queue(OTHER).publish(b"x")
        said += [f"first_confirm_s={perf_counter() - started:.3f}"]
        await message.ack(confirmed=True)
    await asyncio.sleep(LEFT_S)
    return " ".join([*said, f"memory_mib={broker.resident_mib():.0f}"])


async def pass_by(broker: Broker, messages: int, body_bytes: int) -> float:
    """Let messages pass while one waits, one is delayed, one is dead; return the most MiB of log."""
    bodies, most_mib = [b"x" * body_bytes] * ROUND, 0.0
    async with minibroker.connect(broker.url) as client:
        await client.queue("waits").publish(b"ready")
        await client.queue("waits").publish(b"delayed", delay=timedelta(days=10))
        await client.queue("fails").publish(b"dead")
        (message,) = await client.queue("fails").receive(wait=60)
        await message.reject("poison", confirmed=True)
        queue = client.queue(QUEUE)
        for _ in range(messages // ROUND):
            await queue.publish_many(bodies)
            await consume(queue, ROUND)
            most_mib = max(most_mib, broker.disk_mib())
        shown = (await client.stats())["queues"]
        waits, dead = shown["waits"], shown["fails.dlq"]
        assert (waits["ready"], waits["delayed"], dead["ready"]) == (1, 1, 1)
    return most_mib


async def drain(url: str, messages: int) -> float:
    """Consume and ack everything; return messages per second."""
    started = perf_counter()
    async with minibroker.connect(url) as broker:
        await consume(broker.queue(QUEUE), messages)
    return messages / (perf_counter() - started)


async def consume(queue: Any, messages: int) -> None:
    """Consume and ack so many messages."""
    async with queue.consume(prefetch=1_000) as source:
        async for message in source:
            async with message.process():
                messages -= 1
            if not messages:
                break


def main() -> None:
    """Measure one backlog."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--body", type=int, default=200, help="bytes of each body")
    parser.add_argument("--frame", type=int, default=100, help="messages in one frame")
    parser.add_argument("--queues", type=int, default=1, help="over which they are spread")
    parser.add_argument("--kills", type=int, default=2, help="SIGKILLs after filling")
    parser.add_argument("--drain", action="store_true", help="consume everything at the end")
    parser.add_argument(
        "--past", type=int, default=0, help="instead: let so many messages pass others"
    )
    parser.add_argument("flags", nargs="*", help="flags of serve, after --")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="minibroker-growth-"))
    broker = Broker(folder / "data", asked.flags)
    try:
        (measure_passing if asked.past else measure)(broker, asked)
    finally:
        broker.kill()
        shutil.rmtree(folder)


def measure_passing(broker: Broker, asked: argparse.Namespace) -> None:
    """Let messages pass three that stay; print one line."""
    broker.start()
    asyncio.run(first_answer_of_empty(broker.url))
    started = perf_counter()
    most_mib = asyncio.run(pass_by(broker, asked.past, asked.body))
    print(
        f"passed: messages={asked.past} body={asked.body} per_s={asked.past / (perf_counter() - started):.0f} "
        f"most_disk_mib={most_mib:.0f} disk_mib={broker.disk_mib():.0f} "
        f"memory_mib={broker.resident_mib():.0f}"
    )


def measure(broker: Broker, asked: argparse.Namespace) -> None:
    """Fill, kill, start, drain; print a line for each."""
    broker.start()
    asyncio.run(first_answer_of_empty(broker.url))
    fill(broker.url, WARM_UP, asked.body, asked.frame)
    asyncio.run(drain(broker.url, WARM_UP))
    sleep(SETTLE_S)
    empty_mib = broker.resident_mib()
    queues = [QUEUE, *(f"{QUEUE}-{number}" for number in range(1, asked.queues))]
    each, started_cpu_s = asked.messages // asked.queues, broker.cpu_s()
    rate = min(fill(broker.url, each, asked.body, asked.frame, name) for name in queues)
    cpu_us, filled_mib = (broker.cpu_s() - started_cpu_s) * 1e6, broker.resident_mib()
    sleep(SETTLE_S)
    grown_mib = broker.resident_mib() - empty_mib
    print(
        f"filled: messages={asked.messages} body={asked.body} frame={asked.frame} "
        f"queues={asked.queues} per_s={rate:.0f} cpu_us={cpu_us / asked.messages:.2f} "
        f"memory_empty_mib={empty_mib:.0f} memory_mib={filled_mib:.0f} "
        f"memory_after_3_s_mib={broker.resident_mib():.0f} bytes_each={grown_mib * MIB / asked.messages:.2f} "
        f"disk_mib={broker.disk_mib():.0f}",
        flush=True,
    )
    for _ in range(asked.kills):
        broker.kill()
        print("restarted:", asyncio.run(restarted(broker)), flush=True)
    if asked.drain:
        started_cpu_s = broker.cpu_s()
        rate = asyncio.run(drain(broker.url, asked.messages - asked.kills))
        cpu_us, drained_mib = (broker.cpu_s() - started_cpu_s) * 1e6, broker.resident_mib()
        sleep(SETTLE_S)
        print(
            f"drained: per_s={rate:.0f} cpu_us={cpu_us / asked.messages:.2f} memory_mib={drained_mib:.0f} "
            f"memory_after_3_s_mib={broker.resident_mib():.0f} disk_mib={broker.disk_mib():.0f}"
        )


async def first_answer_of_empty(url: str) -> None:
    """Wait until a new server answers."""
    async with minibroker.connect(url, connect_timeout=20) as broker:
        await broker.queue(QUEUE).set()


if __name__ == "__main__":
    main()
