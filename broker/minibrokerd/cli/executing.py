"""Running a command for each message; its exit code says what becomes of the message."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from typing import Any, Final

import minibroker
from minibroker import limits
from minibrokerd import exits
from minibrokerd.cli.printing import note, print_json, printable

REJECT: Final = exits.DAMAGED  # EX_DATAERR of sysexits.h: the input can never be used
CHUNK_BYTES: Final = 64 * 1024


class Executor:
    """Runs one shell command for each message and settles the message by its exit code."""

    def __init__(self, command: str, as_json: bool) -> None:
        self._command = command
        self._as_json = as_json

    async def handle(self, message: minibroker.Message[Any]) -> None:
        """Run the command; ack, reject or nack. Cancelled: end the command, give the message back."""
        async with message.process():  # what goes wrong here, not in the command, is a failure too
            code, last_line = await self._run(message)
            await self._settle(message, code, last_line)

    async def _run(self, message: minibroker.Message[Any]) -> tuple[int, str]:
        # A group of its own: Ctrl-C reaches this process alone, which then waits for the command.
        process = await asyncio.create_subprocess_shell(
            self._command,
            stdin=PIPE,
            stderr=PIPE,
            env=os.environ | environment(message),
            start_new_session=True,
        )
        try:
            _, last_line = await asyncio.gather(_feed(process, message.raw), _last_line(process))
            return await process.wait(), last_line
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            await process.wait()
            raise

    async def finish(self) -> None:
        """Nothing is kept until the end."""

    async def _settle(self, message: minibroker.Message[Any], code: int, last_line: str) -> None:
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
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
            note(
                f"minibroker: {message.id} {outcome}, attempt {message.attempt}: {printable(text)}"
            )


def environment(message: minibroker.Message[Any]) -> dict[str, str]:
    """Return what a command learns of its message beside the body."""
    return {
        "MINIBROKER_QUEUE": message.queue,
        "MINIBROKER_ID": str(message.id),
        "MINIBROKER_TOKEN": str(message.token),
        "MINIBROKER_ATTEMPT": str(message.attempt),
        "MINIBROKER_KEY": (message.key or "").replace("\0", ""),
        "MINIBROKER_HEADERS": json.dumps(message.headers, default=str),
    }


async def _feed(process: Process, body: bytes) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError, ConnectionResetError):  # it need not read its input
        process.stdin.write(body)
        await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()


async def _last_line(process: Process) -> str:
    """Pass on what the command writes to standard error, and return the last line that is not empty."""
    assert process.stderr is not None
    tail = b""
    while chunk := await process.stderr.read(CHUNK_BYTES):
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
        tail = (tail + chunk)[-limits.MAX_ERROR_TEXT_BYTES :]
    lines = tail.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
