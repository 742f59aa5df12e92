"""A process of its own for one `def` handler: it calls the handler for one message after the other.

Started by `children.py`, which speaks to it over a socket: a frame is its length in four bytes, then msgpack. The
first frame names the handler, each further one is a message, and each is answered. Before that answer the handler
may ask for something (`asking.py`), and is answered in turn.
The end of the socket ends the process at once, whatever the handler does: nobody waits for it any more, and the
message belongs to others. Signals are the worker's, which hears them, too, when a whole group is signalled.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
import queue
import signal
import socket
import struct
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

import msgpack

from minibroker.contract.bodies import decode_body
from minibroker.contract.confirms import MessageId
from minibroker.contract.ends import After
from minibroker.contract.errors import BodyError
from minibroker.session.error_text import describe
from minibroker.session.result_wish import encoded
from minibroker.session.spans import in_seconds
from minibroker.shell.tracing import within
from minibroker.worker.asking import GivenStep, refused
from minibroker.worker.calling import with_arguments
from minibroker.worker.declared import takes_of
from minibroker.worker.following import Reject, Retry

LENGTH: Final = struct.Struct("!I")
STARTED: Final = {"kind": "started"}
DONE: Final = {"kind": "done"}


class Given:
    """A message as a handler in a process has it: its values, and what it may ask for while it works."""

    def __init__(self, fields: dict[str, Any], link: Link) -> None:
        self._link = link
        self._asking = threading.Lock()  # a handler may have threads of its own
        self._is_over = False
        self.raw: bytes = fields["raw"]
        self.headers: dict[str, Any] = fields["headers"]
        self.id = MessageId(*fields["id"])
        self.token: int = fields["token"]
        self.attempt: int = fields["attempt"]
        self.max_attempts: int | None = fields["max_attempts"]
        self.key: str | None = fields["key"]
        counts = fields["after"]
        self.after = None if counts is None else After(*counts)
        self.queue: str = fields["queue"]
        self._encoding: int = fields["encoding"]
        self._published_unix_ms: int = fields["published_unix_ms"]
        self._body: Any = None

    @property
    def body(self) -> Any:
        """The body; BodyError if it cannot be decoded."""
        if self._body is None:
            self._body = decode_body(self.raw, self._encoding)
        return self._body

    @property
    def origin(self) -> int:
        """The number of the queue the message was first published to."""
        return self.id.origin

    @property
    def published_at(self) -> datetime:
        """When the server took it, by the server's wall clock (UTC)."""
        return datetime.fromtimestamp(self._published_unix_ms / 1000, UTC)

    def progress(self, share: float, note: str = "") -> None:
        """Say how far the work is, 0.0 to 1.0; see `minibroker.sync.Message.progress`."""
        self.ask(kind="progress", share=share, note=note)

    def extend(self, lease: float | timedelta | None = None) -> None:
        """Renew the lease now, for `lease` seconds; see `minibroker.sync.Message.extend`."""
        self.ask(kind="extend", lease=in_seconds(lease))

    def step(self, *, timeout: float | timedelta | None = None) -> GivenStep:
        """Return a block as `minibroker.sync.Message.step` does: `with message.step() as step:`."""
        return GivenStep(self, timeout)

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Ask the worker for something, and return its answer.

        Raises:
            MinibrokerError, TypeError, ValueError: as the verb of a message does that was asked for.
            RuntimeError: the handler has ended.
        """
        with self._asking:
            if self._is_over:
                raise RuntimeError(f"the handler of message {self.id} has ended")
            said = self._link.ask(asked)
        if said["kind"] == "refused":
            raise refused(said)
        return said

    def end(self) -> None:
        """Have nothing asked any more, by threads that the handler left: it would be of the next message."""
        with self._asking:
            self._is_over = True

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("ack", "complete", "nack", "reject", "release", "process"):
            raise AttributeError(
                f"a handler in a process cannot {name}: return, or raise Reject or Retry of minibroker.worker"
            )
        raise AttributeError(f"a message in a process has no {name!r}")


def packed(value: object) -> bytes:
    """Return a frame."""
    data: bytes = msgpack.packb(value)
    return LENGTH.pack(len(data)) + data


class Link:
    """The socket to the worker, and what a thread has read from it."""

    def __init__(self, link: socket.socket) -> None:
        self._socket = link
        self._frames: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(link, self._frames), daemon=True).start()

    def next(self) -> dict[str, Any]:
        """Wait for the next frame."""
        return self._frames.get()

    def tell(self, said: dict[str, Any]) -> None:
        """Send a frame."""
        self._socket.sendall(packed(said))

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Send a frame and wait for the next one, its answer: the worker sends no other while a handler works."""
        self.tell(asked)
        return self.next()


def outcome(function: Callable[[Any], Any], message: Given, keeps_results: bool) -> dict[str, Any]:
    """Call the handler; return what the worker is told, with what it returned where that is kept."""
    try:
        value = function(message)
        if inspect.isawaitable(value):  # a `def` around an `async def`
            value = asyncio.run(_awaited(value))
        if value is not None and keeps_results:
            return DONE | {"result": encoded(value)}
    except BaseException as error:  # noqa: BLE001 - it is the worker that judges it
        kind, text = describe(error)
        said: dict[str, Any] = {"kind": "failed", "error": kind.decode(), "text": text.decode()}
        if isinstance(error, Reject | BodyError):
            said["kind"] = "rejected"
        elif isinstance(error, Retry):
            said |= {"kind": "retry", "delay": error.delay, "key_delay": error.key_delay}
        return said
    return DONE


async def _awaited(value: Awaitable[object]) -> object:
    return await value


def _handler(module: str, name: str) -> Callable[[Any], Any]:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return with_arguments(found, takes_of(found))


def _read(link: socket.socket, frames: queue.SimpleQueue[dict[str, Any]]) -> NoReturn:
    """Take frames from the worker until it is gone; killed before it had read all, it resets the socket."""
    try:
        with link.makefile("rb") as stream:
            while len(head := stream.read(LENGTH.size)) == LENGTH.size:
                frames.put(msgpack.unpackb(stream.read(*LENGTH.unpack(head))))
    finally:
        os._exit(0)  # whatever it was: without this thread the process would stay for ever


def main(descriptor: int) -> None:
    """Serve the worker at the other end of the socket."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    link = Link(socket.socket(fileno=descriptor))
    first = link.next()
    sys.path[:] = first["path"]
    logging.basicConfig(
        level=first["level"], format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    function = _handler(first["module"], first["name"])
    link.tell(STARTED)
    while True:
        fields = link.next()
        with within(fields):
            message = Given(fields, link)
            said = outcome(function, message, fields["keeps_results"])
            message.end()
        link.tell(said)
