"""What a service manager wants to hear (sd_notify): ready, what it is doing, stopping, still alive.

The protocol is a datagram of `NAME=value` lines to the unix socket that `NOTIFY_SOCKET` names. Without the
variable nothing is sent; a manager that went away is no reason to stop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Speaks to the service manager named in `environment`, if there is one.

    `ping_s` is how often `ping` should be called, in seconds: half of what the manager waits; None: never.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # an abstract name
            self._address = "\0" + self._address[1:]
        self.ping_s = _ping_s(environment) if self._address else None

    def ready(self, status: str) -> None:
        """Say that clients can come."""
        self._send("READY=1", _status(status))

    def status(self, text: str, extend_s: float = 0.0) -> None:
        """Say what is going on, and that it may go on for another `extend_s` seconds."""
        lines = [_status(text)]
        if extend_s:
            lines.append(f"EXTEND_TIMEOUT_USEC={round(extend_s * 1_000_000)}")
        self._send(*lines)

    def reloading(self) -> None:
        """Say that what runs is being replaced; `ready` ends that (Type=notify-reload)."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def stopping(self, status: str) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1", _status(status))

    def ping(self) -> None:
        """Say that the event loop turns."""
        self._send("WATCHDOG=1")

    async def keep_pinging(self) -> None:
        """Ping as often as the manager wants it, until cancelled; returns at once if it does not."""
        while self.ping_s is not None:
            self.ping()
            await asyncio.sleep(self.ping_s)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)  # one that hangs must not hang the broker
            manager.sendto("\n".join(lines).encode(), self._address)


def _status(text: str) -> str:
    return "STATUS=" + text.replace("\n", " ")


def _ping_s(environment: Mapping[str, str]) -> float | None:
    meant_for = environment.get("WATCHDOG_PID", "")
    if meant_for and meant_for != str(os.getpid()):
        return None
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2_000_000 if microseconds.isdecimal() and int(microseconds) else None
