"""Child processes that are surely gone when the demo ends, and waiting for a condition."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

STOP_SECONDS = 10.0  # a child that is asked to stop gets this long before it is killed
PATIENCE_SECONDS = (
    90.0  # for a stage: a machine that does much else takes half a minute to start a program
)
POLL_SECONDS = 0.025

T = TypeVar("T")


class DemoError(Exception):
    """A stage did not come to its end; the text says which one and where to look."""


class Child:
    """One process; what it prints goes to a log file."""

    def __init__(
        self, name: str, argv: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        self.killed = False
        with log.open("ab") as output:  # a process that is started again goes on in its log
            self._process = subprocess.Popen(
                argv,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.pid = self._process.pid

    def sigkill(self) -> None:
        """Kill it as the kernel would when memory runs out.

        Raises:
            DemoError: it ended in another way.
        """
        self.killed = True
        self._process.send_signal(signal.SIGKILL)
        code = self._process.wait(STOP_SECONDS)
        if code != -signal.SIGKILL:
            raise DemoError(f"{self.name} ended with {code}, not by SIGKILL; see {self.log}")

    def alive(self) -> bool:
        """Return whether it still runs."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise DemoError if it ended and nobody asked for it."""
        code = self._process.poll()
        if code is not None and not self.killed:
            raise DemoError(f"{self.name} ended with {code}; see {self.log}")

    def ask_to_stop(self) -> None:
        """Send SIGTERM, if it still runs."""
        if self.alive():
            self._process.terminate()

    def end(self) -> None:
        """Wait until it has stopped; kill it if it takes too long."""
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Crew:
    """All children of the demo. Leaving the context stops them, the last one started first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []

    def __enter__(self) -> Crew:
        shutil.rmtree(self._logs, ignore_errors=True)
        self._logs.mkdir(parents=True)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop(*self._children)

    def start(self, name: str, argv: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start a process and keep it in mind."""
        child = Child(name, argv, environment, self._logs / f"{name}.log")
        self._children.append(child)
        return child

    def stop(self, *children: Child) -> None:
        """Stop these children and forget them."""
        # Newest first, one after the other: workers still need the broker to give back their work.
        for child in reversed(children):
            child.ask_to_stop()
            child.end()
            self._children.remove(child)

    async def until(
        self, condition: Callable[[], T | None], what: str, seconds: float = PATIENCE_SECONDS
    ) -> T:
        """Return the first true value of the condition.

        Raises:
            DemoError: it did not come true in time, or a child ended meanwhile.
        """

        async def ask() -> T | None:
            return condition()

        return await self.until_told(ask, what, seconds)

    async def until_told(
        self, ask: Callable[[], Awaitable[T | None]], what: str, seconds: float = PATIENCE_SECONDS
    ) -> T:
        """Do the same with a condition that must be awaited."""
        deadline = time.monotonic() + seconds
        while not (value := await ask()):
            for child in self._children:
                child.check()
            if time.monotonic() > deadline:
                raise DemoError(f"waited {seconds:.0f} s in vain: {what}; logs are in {self._logs}")
            await asyncio.sleep(POLL_SECONDS)
        return value

    async def until_listening(self, child: Child, port: int) -> None:
        """Wait until something accepts connections on the port."""
        await self.until_told(lambda: _listening(port), f"{child.name} listens on port {port}")


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def _listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
