"""A broker whose log three servers of NATS keep, beside one with a log of files.

`python -m benchmarks.replicated`. Both are on this machine, and take turns. Lone publishes (each awaited), 1,000
tasks that publish one after the other, batches of 100, and how long it is from the kill of a broker to the first
confirm of the next one. Only ratios mean anything: the three servers, their disk and the broker share what the one
with files has for itself.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import minibroker

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.nats_nodes import Nodes, free_ports

BODY = b"x" * 200
LONE, TASKS, EACH, BATCHES = 500, 1_000, 10, 200


class Broker:
    """One broker; `flags` are those of serve."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.port = free_ports(1)[0]
        self._words = ["serve", "--port", str(self.port), "--data-dir", str(folder), "--no-http"]
        self._words += flags
        self.url = f"minibroker://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; clients wait until it listens."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minibrokerd", *self._words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


async def rates(url: str) -> dict[str, float]:
    """Return what was measured: ms of a lone publish, messages a second in tasks and in batches."""
    async with minibroker.connect(url) as broker:
        queue: Any = broker.queue("orders")
        await queue.publish(BODY)
        took: list[float] = []
        for _ in range(LONE):
            began = perf_counter()
            await queue.publish(BODY)
            took.append(perf_counter() - began)

        async def one() -> None:
            for _ in range(EACH):
                await queue.publish(BODY)

        began = perf_counter()
        await asyncio.gather(*(one() for _ in range(TASKS)))
        in_tasks = TASKS * EACH / (perf_counter() - began)
        began = perf_counter()
        for _ in range(BATCHES):
            await queue.publish_many([BODY] * 100)
        in_batches = BATCHES * 100 / (perf_counter() - began)
        await queue.purge()
    return {
        "lone p50 ms": 1_000 * statistics.median(took),
        "lone p99 ms": 1_000 * statistics.quantiles(took, n=100)[-1],
        "1,000 tasks": in_tasks,
        "batches of 100": in_batches,
    }


async def takeover(old: Broker, new: Broker) -> float:
    """Kill a broker, start another one; return the seconds until that confirms."""
    old.kill()
    began = perf_counter()
    new.start()
    async with minibroker.connect(new.url) as broker:
        await broker.queue("orders").publish(BODY)
    return perf_counter() - began


async def main() -> None:
    """Measure in turns, and print the medians."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nodes = Nodes(folder / "nats", 3)
        address = nodes.address("orders")
        brokers = {
            "files": Broker(folder / "files"),
            "three servers": Broker(folder / "one", "--log", address),
        }
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in brokers}
        try:
            nodes.start()
            for broker in brokers.values():
                broker.start()
            for _ in range(3):
                for kind, broker in brokers.items():
                    found[kind].append(await rates(broker.url))
            for row in found["files"][0]:
                files, servers = (
                    statistics.median(each[row] for each in found[kind]) for kind in brokers
                )
                print(
                    f"{row:16} files {files:10.2f}   three {servers:10.2f}   ratio {servers / files:5.2f}"
                )
            old = brokers["three servers"]
            for _ in range(3):
                new = Broker(folder / "one", "--log", address)
                print(f"from kill to confirm {await takeover(old, new):.2f} s")
                old = new
                brokers["three servers"] = new
        finally:
            for broker in brokers.values():
                broker.kill()
            nodes.end()


if __name__ == "__main__":
    asyncio.run(main())
