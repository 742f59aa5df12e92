"""A process of its own for one `def` handler: it calls the handler for one message after the other.

Started by `children.py`, which speaks to it over a socket: a frame is its length in four bytes, then msgpack. The
first frame names the handler, each further one is a message, and each is answered.
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
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import msgpack

from minibroker.contract.bodies import decode_body
from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import BodyError
from minibroker.session.error_text import describe
from minibroker.shell.tracing import within
from minibroker.worker.calling import with_arguments
from minibroker.worker.declared import takes_of
from minibroker.worker.following import Reject, Retry

LENGTH: Final = struct.Struct("!I")
STARTED: Final = {"kind": "started"}
DONE: Final = {"kind": "done"}


class Given:
    """A message as a handler in a process has it: its values, without the verbs."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.raw: bytes = fields["raw"]
        self.headers: dict[str, Any] = fields["headers"]
        self.id = MessageId(*fields["id"])
        self.token: int = fields["token"]
        self.attempt: int = fields["attempt"]
        self.max_attempts: int | None = fields["max_attempts"]
        self.key: str | None = fields["key"]
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

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("ack", "nack", "reject", "release", "extend", "process"):
            raise AttributeError(
                f"a handler in a process cannot {name}: return, or raise Reject or Retry of minibroker.worker"
            )
        raise AttributeError(f"a message in a process has no {name!r}")


def packed(value: object) -> bytes:
    """Return a frame."""
    data: bytes = msgpack.packb(value)
    return LENGTH.pack(len(data)) + data


def outcome(function: Callable[[Any], Any], message: Given) -> dict[str, Any]:
    """Call the handler; return what the worker is told."""
    try:
        value = function(message)
        if inspect.isawaitable(value):  # a `def` around an `async def`
            asyncio.run(_awaited(value))
    except BaseException as error:  # noqa: BLE001 - it is the worker that judges it
        kind, text = describe(error)
        said: dict[str, Any] = {"kind": "failed", "error": kind.decode(), "text": text.decode()}
        if isinstance(error, Reject | BodyError):
            said["kind"] = "rejected"
        elif isinstance(error, Retry):
            said |= {"kind": "retry", "delay": error.delay}
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
    link = socket.socket(fileno=descriptor)
    frames: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(link, frames), daemon=True).start()
    first = frames.get()
    sys.path[:] = first["path"]
    logging.basicConfig(
        level=first["level"], format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    function = _handler(first["module"], first["name"])
    link.sendall(packed(STARTED))
    while True:
        fields = frames.get()
        with within(fields):
            said = outcome(function, Given(fields))
        link.sendall(packed(said))
