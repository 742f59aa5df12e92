"""The network between the processes of a cluster: each way from one to another is a link that can be cut.

A link is a port of its own that carries bytes to another port. It runs in a process of its own (`python
cluster_links.py`), which takes one wish a line, in JSON, and answers each with a line; `Links` speaks with it.

Cut as a hole it reads nothing more, one way or both: what was said waits, connections seem to be there, and
after the healing it arrives late, as over a network that lost packets. Cut by reset all connections end, and new
ones are refused.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final, cast

if __name__ != "__main__":
    from support.processes import TETHER

THERE: Final = "there"
BACK: Final = "back"
BOTH: Final = (THERE, BACK)


class End(asyncio.Protocol):
    """One end of a connection through a link; `way` is that of what is read here."""

    def __init__(self, link: Link, way: str, other: End | None = None) -> None:
        self.link, self.way, self.other = link, way, other
        self.transport: asyncio.Transport | None = None
        self._is_full = False  # the other end takes nothing more for now
        self._kept = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Dial on, or begin to carry; asyncio.Protocol."""
        self.transport = cast(asyncio.Transport, transport)
        self.link.ends.add(self)
        if self.other is None:
            self.link.dial_for(self)
        self.look()

    def data_received(self, data: bytes) -> None:
        """Carry; asyncio.Protocol."""
        self._kept += data  # uvloop reads once more although it was told not to
        self.look()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other end; asyncio.Protocol."""
        self.link.ends.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.abort() if exc is not None else self.other.transport.close()

    def pause_writing(self) -> None:
        """Read no more at the other end; asyncio.Protocol."""
        if self.other is not None:
            self.other._is_full = True
            self.other.look()

    def resume_writing(self) -> None:
        """Read on there; asyncio.Protocol."""
        if self.other is not None:
            self.other._is_full = False
            self.other.look()

    def look(self) -> None:
        """Read, or not, as it should be now."""
        if self.transport is None or self.transport.is_closing():
            return
        other = self.other.transport if self.other is not None else None
        if other is None or other.is_closing() or self._is_full or self.way in self.link.holes:
            self.transport.pause_reading()
            return
        if self._kept:
            kept, self._kept = self._kept, b""
            other.write(kept)
        self.transport.resume_reading()


class Link:
    """One way; `holes` are the ways on which nothing is carried."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.holes: set[str] = set()
        self.ends: set[End] = set()
        self._server: asyncio.Server | None = None
        self._waiting: list[End] = []
        self._dialling: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Take connections, on the same port as ever."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: End(self, THERE), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def dial_for(self, near: End) -> None:
        """Connect an end to the target, now or when the link is whole."""
        if self.holes:
            self._waiting.append(near)
            return
        task = asyncio.ensure_future(self._dial(near))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _dial(self, near: End) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, far = await loop.create_connection(
                lambda: End(self, BACK, near), "127.0.0.1", self.target
            )
        except OSError:
            if near.transport is not None:
                near.transport.abort()
            return
        near.other = far
        if near.transport is None or near.transport.is_closing():
            assert far.transport is not None
            far.transport.abort()
        near.look()

    async def cut(self, how: str, ways: list[str]) -> None:
        """Carry nothing more."""
        if how == "hole":
            self.holes = set(ways)
            for end in self.ends:
                end.look()
            return
        if self._server is not None:
            self._server.close()
            self._server = None
        for end in list(self.ends):
            if end.transport is not None:
                end.transport.abort()

    async def heal(self) -> None:
        """Carry again, what waited first."""
        self.holes = set()
        for end in self.ends:
            end.look()
        waiting, self._waiting = self._waiting, []
        for end in waiting:
            self.dial_for(end)
        if self._server is None:
            await self.listen()


async def serve() -> None:
    """Take wishes until the end of the input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    links: dict[str, Link] = {}
    while line := await reader.readline():
        wish = json.loads(line)
        name, answer = wish["name"], 0
        if wish["do"] == "link":
            links[name] = Link(wish["target"])
            await links[name].listen()
            answer = links[name].port
        elif wish["do"] == "cut":
            await links[name].cut(wish["how"], wish["ways"])
        else:
            await links[name].heal()
        print(answer, flush=True)


class Links:
    """The process with all links, seen from outside."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", TETHER, sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        self.cut_now: set[str] = set()

    def link(self, name: str, target: int) -> int:
        """Make a link to a port; return its own."""
        return self._wish(do="link", name=name, target=target)

    def cut(self, name: str, how: str, ways: tuple[str, ...] = BOTH) -> None:
        """Cut it, as a `hole` or by `reset`."""
        self.cut_now.add(name)
        self._wish(do="cut", name=name, how=how, ways=ways)

    def heal(self) -> None:
        """Have all links whole."""
        for name in sorted(self.cut_now):
            self._wish(do="heal", name=name)
        self.cut_now.clear()

    def _wish(self, **wish: Any) -> int:
        with self._lock:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(json.dumps(wish) + "\n")
            self.process.stdin.flush()
            return int(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()  # closes its pipes


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve())
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
