"""The sockets that the server listens on, and how many connections its descriptors allow.

Addresses are bound before the log is opened: a mistake in them is told at once, not after a long recovery. The
sockets listen only when the server is ready, so until then clients are refused and try again.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import resource
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

BACKLOG: Final = 4_096  # a storm of reconnects must not overflow it; asyncio's default is 100
# Few, so that those beyond the limit are closed before the next ones come.
ACCEPT_AT_ONCE: Final = 4
# What the log, the loop and the standard streams need, with some to spare: a log that cannot open its next segment
# would end the server.
SPARE_DESCRIPTORS: Final = 48
MANY_DESCRIPTORS: Final = 1_048_576  # what Linux allows where nothing else is set

_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_ADVICE: Final[Mapping[int, str]] = {
    errno.EADDRINUSE: "another program listens there; stop it, or choose another {port}",
    errno.EADDRNOTAVAIL: "this machine has no such address; give {host} one of its own (`ip address` lists them)",
    errno.EAFNOSUPPORT: "this machine does not speak that kind of address; give another {host}",
    errno.EACCES: "this user may not listen there; choose a {port} above 1023",
}


class Flags(NamedTuple):
    """What an operator changes to have another address."""

    host: str
    port: str
    either: str


SERVE_FLAGS: Final = Flags("--host", "--port", "--host or --port")
HTTP_FLAGS: Final = Flags("--http", "port with --http HOST:PORT", "--http HOST:PORT")


class CannotListen(Exception):
    """The address cannot be listened on; the text says what to change."""


def bind(host: str, port: int, flags: Flags = SERVE_FLAGS) -> list[socket.socket]:
    """Return a bound socket for each address of `host`; an empty host is every address of this machine.

    `flags` are named in what is said of a failure.

    Raises:
        CannotListen: the host has no address, or none of them can be bound.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CannotListen(
            f"cannot find the address of the host {host!r}: {reason}; "
            f"correct {flags.host}, or give it as a number like 127.0.0.1"
        ) from error
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
        if sockets and not port:  # any free port, but the same one for all addresses
            address = (address[0], sockets[0].getsockname()[1], *address[2:])
        try:
            sockets.append(_bound(family, address))
        except OSError as error:
            if error.errno not in _NOT_HERE:  # `localhost` may name ::1 on a machine without IPv6
                _close(sockets)
                raise cannot_listen(host, port, error, flags) from error
            missing = error
    if missing is not None and not sockets:
        raise cannot_listen(host, port, missing, flags) from missing
    return sockets


async def listen(
    sockets: list[socket.socket],
    connect: Callable[[], asyncio.Protocol],
    loop: asyncio.AbstractEventLoop,
) -> list[asyncio.Server]:
    """Let clients come to these sockets.

    Raises:
        OSError: another program was faster.
    """
    servers = []
    for sock in sockets:
        servers.append(await loop.create_server(connect, sock=sock, backlog=ACCEPT_AT_ONCE))
        sock.listen(BACKLOG)
    return servers


def cannot_listen(host: str, port: int, error: OSError, flags: Flags = SERVE_FLAGS) -> CannotListen:
    """Return the error of an operator for one of the system."""
    advice = _ADVICE.get(error.errno or 0, "choose another {either}").format(**flags._asdict())
    reason = errno.errorcode.get(error.errno or 0, str(error))
    return CannotListen(f"cannot listen on {show(host, port)} ({reason}): {advice}")


def is_local(sockets: list[socket.socket]) -> bool:
    """Whether only this machine reaches these sockets."""
    return all(ipaddress.ip_address(sock.getsockname()[0]).is_loopback for sock in sockets)


def show(host: str, port: int) -> str:
    """Return an address as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reached(sockets: list[socket.socket]) -> str:
    """Return where others reach these sockets: on all addresses, at the name of this machine."""
    host, port = sockets[0].getsockname()[:2]
    return show(socket.gethostname() if ipaddress.ip_address(host).is_unspecified else host, port)


class Shares(NamedTuple):
    """How many connections there may be: of clients, and over HTTP."""

    clients: int
    visitors: int


def connection_limits(most_visitors: int) -> Shares:
    """Raise the limit of open files as far as this user may, and share what fits below it.

    HTTP gets what it asks for, a quarter at most.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else MANY_DESCRIPTORS
    with suppress(OSError, ValueError):  # a sandbox may forbid it; then it stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    free = max(2, soft - SPARE_DESCRIPTORS)
    visitors = min(most_visitors, max(1, free // 4))
    return Shares(free - visitors, visitors)


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
