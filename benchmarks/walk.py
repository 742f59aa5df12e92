"""`python -m benchmarks.walk`: what one publish, one lease and one ack go through, in functions of both sides.

How far a reader has to go, not how long it takes. Client and broker run in one loop, over a real socket and a real
log; what its writer thread does is not counted. Of several calls the shortest one counts, the first two apart:
into others fell timers, the more the slower a machine is.
`--names` prints the functions of one of them in the order in which they are entered.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import minibroker
import minibrokerd
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.engine.engine import Engine
from minibrokerd.log.filelog import FileLog
from minibrokerd.log.writer import Job, Writer
from minibrokerd.net.connections import Connections

SIDES: Final = {
    "client": Path(minibroker.__file__).parent,
    "server": Path(minibrokerd.__file__).parent,
}
TRIES: Final = 9
# Of these, which meet connections and digests as they begin, and a log with less in it.
FIRST: Final = 2
PATIENCE_S: Final = 20.0
OPERATIONS: Final = ("publish", "receive", "ack")


@dataclass
class Walk:
    """The functions of one side that one call entered, as (module, function), in order and as often."""

    entered: list[tuple[str, str]] = field(default_factory=list)

    @property
    def functions(self) -> int:
        """How many different ones."""
        return len(set(self.entered))

    @property
    def modules(self) -> int:
        """In how many modules they stand."""
        return len({module for module, _ in self.entered})


Walks = dict[str, Walk]  # by side


class Profiler:
    """Notes the functions of both sides that this thread enters."""

    def __init__(self) -> None:
        self.walks: Walks = {side: Walk() for side in SIDES}
        self._roots = [(f"{root}/", side) for side, root in SIDES.items()]

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        for root, side in self._roots:
            if code.co_filename.startswith(root):
                module = code.co_filename.removeprefix(root)
                self.walks[side].entered.append((module, code.co_qualname))


class HandsOver(Writer):
    """A writer whose thread does all jobs, and is waited for: all else depends on the disk."""

    def do(self, run: Callable[[], None]) -> bool:
        """Leave it to the thread."""
        return False

    def wait(self, job: Job, seconds: float) -> bool:
        """Wait for as long as it takes."""
        return super().wait(job, PATIENCE_S)


@asynccontextmanager
async def broker(folder: Path) -> AsyncIterator[str]:
    """Run a broker in this loop and yield its URL."""
    loop = asyncio.get_running_loop()
    log = FileLog(folder, segment_bytes=1024 * 1024, make_writer=HandsOver)
    core = Core(BodyStore(log.segments.read_one), sizes=log.sizes)
    engine = Engine(core, log, loop, lambda error: loop.stop())
    connections = Connections(engine, loop, sys.maxsize)
    for batch in log.recover():
        engine.replay(batch)
    connections.session_key = log.session_key
    engine.start(0)
    server = await loop.create_server(connections.make, "127.0.0.1", 0)
    try:
        yield f"minibroker://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        log.abandon()


async def walked() -> dict[str, Walks]:
    """Return the shortest walk of each operation on each side, the first ones apart."""
    with tempfile.TemporaryDirectory() as folder:
        async with broker(Path(folder) / "data") as url, minibroker.connect(url) as client:
            queue: Any = client.queue("q")
            found: dict[str, list[Walks]] = {name: [] for name in OPERATIONS}
            for _ in range(TRIES):
                found["publish"].append((await _profiled(lambda: queue.publish(b"x")))[0])
                walks, (message,) = await _profiled(lambda: queue.receive(count=1, wait=1))
                found["receive"].append(walks)
                ack = partial(message.ack, confirmed=True)
                found["ack"].append((await _profiled(ack))[0])
    return {
        name: {side: min((walks[side] for walks in each[FIRST:]), key=_length) for side in SIDES}
        for name, each in found.items()
    }


def _length(walk: Walk) -> tuple[int, int]:
    return walk.modules, walk.functions


async def _profiled(call: Callable[[], Awaitable[Any]]) -> tuple[Walks, Any]:
    profiler = Profiler()
    sys.setprofile(profiler)
    try:
        result = await call()
    finally:
        sys.setprofile(None)
    return profiler.walks, result


def main() -> None:
    """Print a line for each operation and side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", choices=OPERATIONS, help="print the functions of one operation")
    names = parser.parse_args().names
    found = asyncio.run(walked())
    if names:
        for side, walk in found[names].items():
            print(*(f"{side} {module} {name}" for module, name in walk.entered), sep="\n")
        return
    print(f"{'one':10}{'side':10}{'calls':>8}{'functions':>12}{'modules':>10}")
    for name, walks in found.items():
        for side, walk in walks.items():
            print(f"{name:10}{side:10}{len(walk.entered):8}{walk.functions:12}{walk.modules:10}")


if __name__ == "__main__":
    main()
