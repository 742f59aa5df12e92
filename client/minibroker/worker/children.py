"""Processes for one `def` handler, as many as its concurrency, each with one message at a time.

Not a pool of the standard library, which is broken as a whole when one of its processes dies: here that costs the
message of that process an attempt, with a cause of its own, and the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, Final

import msgpack

from minibroker.aio.message import Message
from minibroker.contract.bodies import decode_body
from minibroker.session.result_wish import MSGPACK
from minibroker.shell.tracing import carried
from minibroker.worker.asking import ASKED, answer
from minibroker.worker.calling import timed_out
from minibroker.worker.child import LENGTH, packed
from minibroker.worker.declared import Declared
from minibroker.worker.following import ProcessDied, Reject, Retry
from minibroker.worker.signalling import send

MAIN: Final = "from minibroker.worker.child import main"
START_S: Final = 60.0
LAST_WORDS_S: Final = 5.0


class Children:
    """Calls a handler in processes of its own; `start` the first, `close` all."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()

    async def start(self) -> None:
        """Start one process, to see whether that goes well; the others start with their first message.

        Raises:
            ProcessDied: the module of the handler cannot be imported again; standard error has the reason.
        """
        self._idle.append(await _Child.start(self._declared))

    async def call(self, message: Message[Any]) -> object:
        """Call the handler in a process; raise what it raised, by class and text, or ProcessDied.

        Returns what it returned where the queue keeps results, else None.
        """
        child = self._rested() or await _Child.start(self._declared)
        self._busy.add(child)
        timeout_s = self._declared.timeout_s
        try:
            async with asyncio.timeout(timeout_s) as bound:
                said = await child.ask(_fields(message) | carried())
                while said["kind"] in ASKED:
                    said = await child.ask(await answer(message, said))
        except TimeoutError as error:
            await child.kill()
            if bound.expired() and timeout_s is not None:
                raise timed_out(timeout_s) from None
            raise error
        except BaseException:
            await child.kill()
            raise
        finally:
            self._busy.discard(child)
        self._idle.append(child)
        _raise_as(said)
        return decode_body(said["result"], MSGPACK) if "result" in said else None

    def _rested(self) -> _Child | None:
        """Return a process that has nothing to do, if there is one; one that died so is no message's fault."""
        while self._idle:
            child = self._idle.pop()
            if child.is_alive:
                return child
        return None

    async def close(self) -> None:
        """End all processes, those with a message, too."""
        ended, self._idle = [*self._idle, *self._busy], []
        await asyncio.gather(*(child.kill() for child in ended))


class _Child:
    """One process, and the socket to it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, declared: Declared) -> _Child:
        """Start a process and wait until it has imported the handler."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", f"{MAIN}; main({theirs.fileno()})",
                pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        child = cls(process, reader, writer)
        first = {
            "module": declared.function.__module__,
            "name": declared.function.__qualname__,
            "path": sys.path,
            "level": logging.getLogger().level,
        }
        try:
            async with asyncio.timeout(START_S):
                await child.ask(first)
        except BaseException:
            await child.kill()
            raise
        return child

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._process.returncode is None and not self._reader.at_eof()

    async def ask(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Send a frame and return the answer; ProcessDied if there is none."""
        try:
            self._writer.write(packed(fields))
            (size,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            said: dict[str, Any] = msgpack.unpackb(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, OSError):
            code = await self._process.wait()
            raise ProcessDied(f"the process of its handler {_ended(code)}") from None
        return said

    async def kill(self) -> None:
        """End the process at once, and wait until it has."""
        self._writer.close()
        send(self._process, signal.SIGKILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._process.wait()


def _fields(message: Message[Any]) -> dict[str, Any]:
    run = message.run
    return {
        "raw": message.raw,
        "encoding": run.encoding,
        "headers": message.headers,
        "id": [message.origin, message.sequence],
        "token": message.token,
        "attempt": message.attempt,
        "max_attempts": message.max_attempts,
        "key": message.key,
        "after": message.after,
        "queue": message.queue,
        "published_unix_ms": run.published_unix_ms,
        "keeps_results": run.delivery.keeps_results,
    }


def _raise_as(said: dict[str, Any]) -> None:
    """Raise what the handler raised in its process: an error of the same name, with the same text."""
    kind = said["kind"]
    if kind == "done":
        return
    base: type[Exception] = (
        Reject if kind == "rejected" else Retry if kind == "retry" else Exception
    )
    wishes = {name: said[name] for name in ("delay", "key_delay") if base is Retry}
    error = type(said["error"], (base,), {})(said["text"], **wishes)
    raise error


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    memory = ", perhaps for want of memory" if name == "SIGKILL" else ""
    return f"was killed by {name}{memory}"
