"""What a backlog takes of memory: on files, on a stream, and of a broker that stands by; and a takeover on it.

    PYTHONPATH=tests python -m benchmarks.replicated.backlogs --messages 1000000 --body 200 --frame 100

One server of NATS: memory does not depend on how many there are. Of the takeovers the first is of the broker that
stood by, the second of one that is started then; seconds from the signal, or the start, to the first confirm.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep

from benchmarks.growth import fill
from benchmarks.processes import resident_bytes
from benchmarks.replicated.takeovers import Broker, takeover

import minibroker
from support.nats_nodes import Nodes

MIB = 1024 * 1024
OPEN_S = 120  # that a start may take
CALM_S = 3  # until what was written is replayed


def opened(broker: Broker) -> Broker:
    """Start a broker; return it when its port is open."""
    if broker.process is None:
        broker.start()
    until_s = perf_counter() + OPEN_S
    while perf_counter() < until_s:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", broker.port)).close()
            return broker
        sleep(0.02)
    raise TimeoutError("it does not listen")


def resident(broker: Broker) -> int:
    """Return the resident memory of a broker, in MiB."""
    assert broker.process is not None
    return resident_bytes(broker.process.pid) // MIB


def spooled(folder: Path) -> int:
    """Return the bytes of the spool of a broker."""
    return sum(file.stat().st_size for file in folder.glob("spool-*/*"))


async def confirm(url: str) -> None:
    """Return when the first confirm is there."""
    async with minibroker.connect(url) as broker:
        await broker.queue("orders").publish(b"x")


def measure(folder: Path, messages: int, body: int, frame: int) -> None:
    """Print a line for each of them."""
    brokers: list[Broker] = []

    def new(name: str, *flags: str) -> Broker:
        (folder / name).mkdir()
        brokers.append(Broker(folder / name, "--no-http", *flags))
        return brokers[-1]

    nodes = Nodes(folder / "nats", 1)
    nodes.start()
    try:
        files = opened(new("files"))
        fill(files.url, messages, body, frame)
        sleep(CALM_S)
        of_files = resident(files)
        files.kill()
        print(f"files: {of_files} MiB")
        address = nodes.address("backlog")
        first = opened(new("first", "--log", address))
        second = new("second", "--log", address, "--standby")
        second.start()
        fill(first.url, messages, body, frame)
        while spooled(folder / "second") < spooled(folder / "first") - MIB:
            sleep(0.2)
        sleep(CALM_S)
        for name, broker in (("leads", first), ("stands by", second)):
            print(f"{name}: {resident(broker)} MiB, {resident(broker) / of_files:.2f}")
        took = asyncio.run(takeover(first, second, signal.SIGKILL))
        print(f"warm: {took:.1f} s, {resident(second)} MiB")
        second.kill()
        began = perf_counter()
        third = opened(new("third", "--log", address))
        asyncio.run(confirm(third.url))
        print(f"cold: {perf_counter() - began:.1f} s, {resident(third)} MiB")
    finally:
        for broker in brokers:
            broker.kill()
        nodes.end()


def main() -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("messages", 1_000_000), ("body", 200), ("frame", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="minibroker-backlogs-") as folder:
        measure(Path(folder), asked.messages, asked.body, asked.frame)


if __name__ == "__main__":
    main()
