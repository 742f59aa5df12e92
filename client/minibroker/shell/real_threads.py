"""Threads, sockets and waits of the interpreter itself, also where gevent has put its own in their place.

Under `gevent.monkey.patch_all()` a `threading.Thread` is a greenlet: it runs only while the others wait, so it
could not renew a lease beside a handler that computes. gevent keeps what it replaced, and hands it out by
`get_original`; the C modules `_socket` and `_thread` are not replaced at all.
"""

from __future__ import annotations

import _socket
import importlib
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

TAKEN: Final = "is not there, as under eventlet.monkey_patch(): use threads or gevent instead"
RINGS: Final = 4_096  # bytes read from a bell at once: how often it rang means nothing


def original(module: str, name: str) -> Any:
    """Return an attribute of a module as it was before gevent replaced it.

    Raises:
        RuntimeError: it was taken away.
    """
    monkey = sys.modules.get("gevent.monkey")
    try:
        if monkey is not None:
            return monkey.get_original(module, name)
        return getattr(importlib.import_module(module), name)
    except AttributeError:
        raise RuntimeError(f"{module}.{name} {TAKEN}") from None


class Clock:
    """The monotonic clock, in a place where a library that freezes time for tests does not look for it.

    freezegun replaces functions of `time` wherever a module has a name for them; a lease goes on running.
    """

    monotonic: Final = staticmethod(original("time", "monotonic"))


def start_thread(function: Callable[[], None]) -> None:
    """Run a function in a thread that never keeps the process alive."""
    original("_thread", "start_new_thread")(function, ())


class Flag:
    """Set or not; others can wait until it is. As `threading.Event`, out of one lock of the interpreter."""

    def __init__(self) -> None:
        self._unset = original("_thread", "allocate_lock")()
        self._unset.acquire()
        self._is_set = False

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it; only its owner sets and clears it."""
        if not self._is_set:
            self._is_set = True
            self._unset.release()

    def clear(self) -> None:
        """Let it be unset again."""
        if self._is_set:
            self._unset.acquire()
            self._is_set = False

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is set, `timeout_s` seconds at the most; return whether it is."""
        if self._unset.acquire(True, timeout_s):
            self._unset.release()
        return self._is_set


class Pollable(Protocol):
    """What has a descriptor."""

    def fileno(self) -> int:
        """Return it."""
        ...


class Bell:
    """Wakes a thread that waits for a socket or a time. Ringing is cheap, and may come from any thread."""

    def __init__(self) -> None:
        self._poll: Any = original("select", "poll")
        self._hears, self._rings = _socket.socketpair()
        self._hears.setblocking(False)
        self._rings.setblocking(False)

    def ring(self) -> None:
        """Let `wait` return at once, now or the next time."""
        try:
            self._rings.send(b"!")
        except OSError:
            return  # full: it rings already; or closed: nobody waits any more

    def wait(self, timeout_s: float, socket: Pollable | None = None) -> bool:
        """Wait for the bell, a socket or the time; return whether the socket can be read."""
        poll = self._poll()
        poll.register(self._hears.fileno(), 1)  # POLLIN
        if socket is not None:
            poll.register(socket.fileno(), 1)
        ready = {descriptor for descriptor, _ in poll.poll(max(0.0, timeout_s) * 1_000)}
        if self._hears.fileno() in ready:
            self._hears.recv(RINGS)
        return socket is not None and socket.fileno() in ready

    def fileno(self) -> int:
        """Return the descriptor that can be read when it rings."""
        return self._hears.fileno()

    def hear(self) -> None:
        """Note that it rang."""
        try:
            self._hears.recv(RINGS)
        except OSError:
            return  # somebody else has

    def close(self) -> None:
        """Give the descriptors back."""
        self._hears.close()
        self._rings.close()


def dial(address: tuple[str, int], timeout_s: float) -> _socket.socket:
    """Return a blocking socket that is connected to host and port; OSError if none of its addresses answers."""
    error: OSError = OSError(f"{address[0]} has no address")
    for family, kind, protocol, _, place in _socket.getaddrinfo(*address, 0, _socket.SOCK_STREAM):
        sock = _socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout_s)
            sock.connect(place)
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except OSError as refusal:
            sock.close()
            error = refusal
        else:
            return sock
    raise error
