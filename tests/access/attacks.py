"""Attacks of strangers on one broker. Each is tried so many times, and returns how often it was refused.

Refused is who was answered with an error, or closed: nothing was taken, and nothing is kept. The deadlines are the
broker's; here it is only counted that it came to them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgpack

from minibroker.contract.limits import LOGIN_DEADLINE_MS

PATIENCE_S: Final = 60.0
AT_ONCE: Final = 2_000  # connections of the attacker: its own descriptors end, too


def hello(token: str) -> bytes:
    """Return a login."""
    header = msgpack.packb({"parts": [{"op": "hello", "protocol": 1, "token": token}]})
    payload: bytes = msgpack.packb([header, b"", b"", b""])
    return len(payload).to_bytes(4, "big") + payload


def client_hello() -> bytes:
    """Return the first flight of a client with TLS."""
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


async def told(host: str, port: int, data: bytes) -> bool:
    """Connect, send, and read to the end; return whether the end came."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except ConnectionError:
        return True
    try:
        with suppress(ConnectionError):
            writer.write(data)
            await asyncio.wait_for(reader.read(), PATIENCE_S)
        return True
    except TimeoutError:
        return False
    finally:
        writer.transport.abort()


async def _all(host: str, port: int, count: int, data: bytes) -> int:
    refused = 0
    for at in range(0, count, AT_ONCE):
        tried = [told(host, port, data) for _ in range(min(AT_ONCE, count - at))]
        refused += sum(await asyncio.gather(*tried))
    return refused


async def half_open(host: str, port: int, count: int) -> int:
    """Connect and say nothing: ended when a login had its time."""
    return await _all(host, port, count, b"")


async def slow_logins(host: str, port: int, count: int) -> int:
    """Begin to log in and never come to the end of it."""
    return await _all(host, port, count, hello("mbt_")[:-1])


async def wrong_tokens(host: str, port: int, count: int) -> int:
    """Log in with a token that is none."""
    return await _all(host, port, count, hello("mbt_00000000_" + "A" * 43))


async def oversized(host: str, port: int, count: int) -> int:
    """Announce a first frame of 4 GiB, with a beginning."""
    return await _all(host, port, count, b"\xff\xff\xff\xff\x94" + bytes(1_000))


async def handshakes(host: str, port: int, count: int) -> int:
    """Have the broker sign for a handshake that is never done; without TLS it is a stranger's word."""
    return await _all(host, port, count, client_hello())


async def storm(host: str, port: int, count: int) -> int:
    """Connect and leave, as fast as it goes."""
    done = 0

    async def come_and_go() -> None:
        nonlocal done
        with suppress(ConnectionError):
            _, writer = await asyncio.open_connection(host, port)
            writer.transport.abort()
        done += 1

    for at in range(0, count, AT_ONCE):
        await asyncio.gather(*[come_and_go() for _ in range(min(AT_ONCE, count - at))])
    return done


Attack = Callable[[str, int, int], Awaitable[int]]
ATTACKS: Final[dict[str, Attack]] = {
    each.__name__: each
    for each in (half_open, slow_logins, wrong_tokens, oversized, handshakes, storm)
}
LASTING: Final = ("half_open", "slow_logins", "handshakes")  # as long as a login may take
assert LOGIN_DEADLINE_MS < PATIENCE_S * 1_000
