"""What a command writes to standard error: it is passed on, and its end is kept for the history.

Who reads our standard error may be slow, or gone for good. A slow one slows the command down, as it would without
us in between; one that takes nothing for a second loses what does not fit, so that the command comes to its end.
The event loop, which settles the messages of other commands, never waits for either.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

from minibroker.contract import limits
from minibrokerd.cli.printing import shown
from minibrokerd.process.outlet import MAX_WAITING_BYTES, STDERR, Outlet

CHUNK_BYTES: Final = 64 * 1024  # all that a pipe holds
PATIENCE_S: Final = 1.0
LOOK_AGAIN_S: Final = 0.01


class Passing:
    """Our standard error, for all commands that run."""

    def __init__(self, descriptor: int = STDERR) -> None:
        self._outlet = Outlet(descriptor, _say_lost)
        self._done_bytes = 0
        self._since_s = 0.0  # when it was seen to take something, or to have nothing to take

    def write(self, data: bytes) -> None:
        """Pass something on."""
        self._outlet.write(data)

    def note(self, text: str) -> None:
        """Say something of our own."""
        encoding = sys.stderr.encoding or "utf-8"
        self.write(f"{shown(text, sys.stderr)}\n".encode(encoding, "backslashreplace"))

    def is_slow(self, now_s: float) -> bool:
        """Return whether whoever has more should wait, because what was passed on before is still being read."""
        done_bytes = self._outlet.done_bytes
        is_little = self._outlet.waiting_bytes <= MAX_WAITING_BYTES // 2
        if is_little or done_bytes != self._done_bytes:
            self._done_bytes, self._since_s = done_bytes, now_s
        return not is_little and now_s - self._since_s < PATIENCE_S

    async def finish(self) -> None:
        """Return when all of it is written, or nobody has read for a while."""
        await asyncio.to_thread(self._outlet.flush, PATIENCE_S)


class Stderr:
    """The standard error of one command: `writer` is the end that the command gets."""

    def __init__(self, passing: Passing) -> None:
        self._passing = passing
        self._loop = asyncio.get_running_loop()
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._tail = b""
        # Until its end, which may come after that of the command: what it left running may still write.
        self._loop.add_reader(self._reader, self._readable)

    def last_line(self) -> str:
        """Return the last line until now that is not empty."""
        self._read()
        lines = self._tail.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _readable(self) -> None:
        if self._passing.is_slow(self._loop.time()):
            self._loop.remove_reader(self._reader)
            self._loop.call_later(LOOK_AGAIN_S, self._look_again)
        else:
            self._read()

    def _look_again(self) -> None:
        if self._reader >= 0:
            self._loop.add_reader(self._reader, self._readable)

    def _read(self) -> None:
        if self._reader < 0:
            return
        try:
            chunk = os.read(self._reader, CHUNK_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._loop.remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1
            return
        self._tail = (self._tail + chunk)[-limits.MAX_ERROR_TEXT_BYTES :]
        self._passing.write(chunk)


def _say_lost(count: int) -> bytes:
    return b"minibroker: nobody read this: %d pieces of what commands wrote are missing\n" % count
