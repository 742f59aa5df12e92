"""Running a command for each message; its exit code says what becomes of the message."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from contextlib import suppress
from typing import Any, Final

import minibroker
from minibroker.shell.tracing import CARRIED, carried
from minibrokerd.cli.passing import Passing, Stderr
from minibrokerd.cli.printing import print_json, printable
from minibrokerd.cli.trace_variables import variables_of
from minibrokerd.process import exits
from minibrokerd.text.values import json_line

MOST_HEADERS: Final = 120_000  # bytes; Linux takes no variable above 128 KiB
REJECT: Final = exits.DAMAGED  # EX_DATAERR of sysexits.h: the input can never be used
KILL_S: Final = 5.0  # how long a command may take to end after SIGTERM


class Executor:
    """Runs one shell command for each message and settles the message by its exit code."""

    def __init__(self, command: str, as_json: bool) -> None:
        self._command = command
        self._as_json = as_json
        self._passing = Passing()

    async def handle(self, message: minibroker.Message[Any]) -> None:
        """Run the command; ack, reject or nack. Cancelled: end the command, give the message back."""
        async with message.process():  # what goes wrong here, not in the command, is a failure too
            known = environment(message)
            if len(known["MINIBROKER_HEADERS"]) > MOST_HEADERS:
                code, last_line = (
                    REJECT,
                    f"headers above {MOST_HEADERS} bytes fit into no environment",
                )
            else:
                code, last_line = await self._run(message, known)
            await self._settle(message, code, last_line)

    async def _run(
        self, message: minibroker.Message[Any], known: dict[str, str]
    ) -> tuple[int, str]:
        # A group of its own: Ctrl-C reaches this process alone, which then waits for the command.
        # A file and a pipe of our own: asyncio waits for the end of its pipes, and a child in the background
        # keeps them open.
        body, stderr = _file_of(message.raw), Stderr(self._passing)
        try:
            process = await asyncio.create_subprocess_shell(
                self._command,
                stdin=body,
                stderr=stderr.writer,
                env=os.environ | known,
                start_new_session=True,
            )
        finally:
            os.close(body)
            os.close(stderr.writer)
        try:
            return await process.wait(), stderr.last_line()
        except asyncio.CancelledError:
            await _end(process)
            raise

    async def finish(self) -> None:
        """Let what commands wrote to standard error be read."""
        await self._passing.finish()

    async def _settle(self, message: minibroker.Message[Any], code: int, last_line: str) -> None:
        how = f"exit code {code}" if code >= 0 else f"signal {_signal_name(-code)}"
        text = f"{how}: {last_line}" if last_line else how
        if code == exits.DONE:
            outcome = "acked"
            await message.ack()
        elif code == REJECT:
            outcome = "rejected"
            await message.reject(text)
        else:
            outcome = "failed"
            await message.nack(text)
        if self._as_json:
            about = {"id": str(message.id), "attempt": message.attempt, "outcome": outcome}
            print_json({**about, "exit_code": code})
        elif outcome != "acked":
            self._passing.note(
                f"minibroker: {message.id} {outcome}, attempt {message.attempt}: {printable(text)}"
            )


def environment(message: minibroker.Message[Any]) -> dict[str, str]:
    """Return what a command learns of its message beside the body."""
    headers = message.headers
    return {
        "MINIBROKER_QUEUE": message.queue,
        "MINIBROKER_ID": str(message.id),
        "MINIBROKER_TOKEN": str(message.token),
        "MINIBROKER_ATTEMPT": str(message.attempt),
        "MINIBROKER_KEY": (message.key or "").replace("\0", ""),
        "MINIBROKER_HEADERS": json_line(headers, ascii_only=True),
        **variables_of({**headers, **carried().get(CARRIED, {})}),
    }


def _file_of(body: bytes) -> int:
    """Return a descriptor from which a command reads the body, or not, as it likes."""
    descriptor = os.memfd_create("body")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(body)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


async def _end(process: Process) -> None:
    """End a command and what it started: with SIGTERM, and with SIGKILL if it does not listen."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        async with asyncio.timeout(KILL_S):
            await process.wait()
    except (ProcessLookupError, TimeoutError):
        pass
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time signals have no name
        return str(number)
