"""Lines of standard input or of a file as they come: what a slow pipe has said goes out at once.

Nothing waits in the event loop, and no thread waits for a keyboard: it could not be ended by Ctrl-C.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator
from typing import Final

CHUNK_BYTES: Final = 256 * 1024
READY_AT_ONCE: Final = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISBLK)  # no loop can wait for these


class LineTooLong(Exception):
    """A line that no message may be as long as."""


async def lines(descriptor: int, longest: int) -> AsyncIterator[list[bytes]]:
    """Yield the lines that are there, without their ends, whenever there are some; the last one needs no end.

    Raises:
        LineTooLong: one has more than `longest` bytes; all before it were yielded.
        OSError: it cannot be read.
    """
    rest, number = bytearray(), 0
    async for chunk in chunks(descriptor):
        rest += chunk
        found = rest.split(b"\n")
        rest = found.pop()
        good = list(_short(found, longest))
        number += len(good)
        if good:
            yield good
        if len(good) < len(found) or len(rest) > longest:
            raise LineTooLong(f"line {number + 1} has more than {longest:,} bytes")
    if rest:
        yield [bytes(rest)]


def _short(found: list[bytearray], longest: int) -> Iterator[bytes]:
    for line in found:
        if len(line) > longest:
            return
        yield bytes(line)


async def chunks(descriptor: int) -> AsyncIterator[bytes]:
    """Yield what can be read, as soon as it can be read, until the end."""
    waits = not any(kind(os.fstat(descriptor).st_mode) for kind in READY_AT_ONCE)
    while True:
        if waits:
            try:
                await _readable(descriptor)
            except PermissionError:  # a device that no loop can wait for, like /dev/null
                waits = False
        chunk = os.read(descriptor, CHUNK_BYTES)
        if not chunk:
            return
        yield chunk
        await asyncio.sleep(0)


def _wake(there: asyncio.Future[None]) -> None:
    if not there.done():
        there.set_result(None)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    there: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _wake, there)
    try:
        await there
    finally:
        loop.remove_reader(descriptor)
