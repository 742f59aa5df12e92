"""How long it is from the end of a broker to the first confirm of the next one, with many messages waiting.

One that is started then (cold), one that stood by (warm), and one that stood by when the first was stopped in good
order. The log is on three servers of NATS; all of them are on this machine.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

import minibroker
from support.nats_nodes import Nodes, free_ports

BODY = b"x" * 200
TASKS = 1_000
# Messages while a takeover is measured; so many of them in frames of their own.
WAITING, SINGLY = 1_000_000, 100_000
TAKEOVERS = 5  # of each kind


class Broker:
    """One broker; `flags` are those of serve."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.port = free_ports(1)[0]
        self._words = ["serve", "--port", str(self.port), "--data-dir", str(folder)]
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


async def fill(url: str) -> None:
    """Have messages wait, most of them from large frames, some singly."""
    async with minibroker.connect(url) as broker:
        queue: Any = broker.queue("waiting")
        for _ in range((WAITING - SINGLY) // 1_000):
            await queue.publish_many([BODY] * 1_000)

        async def one() -> None:
            for _ in range(SINGLY // TASKS):
                await queue.publish(BODY)

        await asyncio.gather(*(one() for _ in range(TASKS)))


async def takeover(old: Broker, new: Broker, number: int) -> float:
    """End a broker by a signal; return the seconds until another one confirms, which may have to be started."""
    assert old.process is not None
    old.process.send_signal(number)
    began = perf_counter()
    if new.process is None:
        new.start()
    async with minibroker.connect(new.url) as broker:
        await broker.queue("orders").publish(BODY)
    took = perf_counter() - began
    await asyncio.to_thread(old.process.wait)
    return took


async def stand_by(broker: Broker, page: int) -> None:
    """Start a broker that stands by; return when it has read what there is."""
    broker.start()
    assert broker.process is not None
    async with httpx.AsyncClient(trust_env=False) as client:
        while broker.process.poll() is None:
            await asyncio.sleep(0.2)
            try:
                said = (await client.get(f"http://127.0.0.1:{page}/metrics")).text
            except httpx.TransportError:
                continue
            if "minibroker_recovery_ratio 1\n" in said and '{phase="standby"} 1' in said:
                return


async def takeovers(folder: Path, address: str, old: Broker) -> Broker:
    """Measure all kinds of them; return the broker that leads at the end."""
    await fill(old.url)
    for kind, number in (
        ("cold", signal.SIGKILL),
        ("warm", signal.SIGKILL),
        ("in order", signal.SIGTERM),
    ):
        took: list[float] = []
        for _ in range(TAKEOVERS):
            if kind == "cold":
                new = Broker(folder / "one", "--no-http", "--log", address)
            else:
                (page,) = free_ports(1)
                words = ("--http", f"127.0.0.1:{page}", "--log", address, "--standby")
                new = Broker(folder / f"at{page}", *words)
                await stand_by(new, page)
            took.append(await takeover(old, new, number))
            old = new
        spread = "  ".join(f"{each:.2f}" for each in sorted(took))
        print(f"to the first confirm, {WAITING:,} waiting, {kind}: {spread} s", flush=True)
    return old


async def main() -> None:
    """Measure all kinds of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nodes = Nodes(folder / "nats", 3)
        address = nodes.address("orders")
        broker = Broker(folder / "one", "--no-http", "--log", address)
        try:
            nodes.start()
            broker.start()
            broker = await takeovers(folder, address, broker)
        finally:
            broker.kill()
            nodes.end()
