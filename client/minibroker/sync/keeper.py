"""The thread that looks after a connection while no caller does: while handlers compute, between two calls.

It writes acks that nobody waits for, reads what comes, keeps the signs of life going, and connects again when the
connection is lost, so that leases are kept. It starts with the first message that is begun, or the first consumer;
a program that only publishes has no such thread.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from minibroker.session.machine import Machine
from minibroker.shell.monotonic import now_ms
from minibroker.shell.real_threads import Bell, start_thread
from minibroker.shell.telling import logger

SOON_S: Final = 0.005  # acks that share a frame wait no longer
BUSY_S: Final = 0.02  # while there is no connection
IDLE_S: Final = (
    0.25  # a connection that is lost is noticed after that: within the server's wait for a resume
)
WATCHED_S: Final = 2.5  # a loop polls the connection itself: the keeper does what is due


class Owner(Protocol):
    """The driver that is looked after."""

    machine: Machine

    def round(self) -> None:
        """Do, without waiting, what a thread that leads would."""


class Keeper:
    """The thread; `start` it once, `stop` it when the session ends."""

    def __init__(self, driver: Owner) -> None:
        self._driver = driver
        self._machine: Any = driver.machine
        self._bell = Bell()
        self._stopped = False
        self._sleeps = False  # for long
        self.is_watched = False  # by a loop that polls the connection
        self.until_ms = 0  # when it looks of its own accord, while it is

    def start(self) -> None:
        """Start the thread."""
        start_thread(self._run)

    def stop(self) -> None:
        """Let the thread end."""
        self._stopped = True
        self._bell.ring()

    def soon(self) -> None:
        """Let what waits be written within a few ms."""
        if self._sleeps:
            self._sleeps = False
            self._bell.ring()

    def close_copy(self) -> None:
        """In a forked child, where the thread does not run: give the descriptors back."""
        self._bell.close()

    def _run(self) -> None:
        while not self._stopped:
            session = self._machine.session
            is_calm = session.is_open and not session.owing
            self._sleeps = is_calm
            self._bell.wait(self._calm_s() if is_calm else SOON_S if session.is_open else BUSY_S)
            self._sleeps = False
            if not is_calm or not self._stopped:
                self._look()
        self._bell.close()

    def _calm_s(self) -> float:
        if not self.is_watched:
            return IDLE_S
        now = now_ms()
        self.until_ms = min(now + int(WATCHED_S * 1_000), self._machine.timers.wake_ms)
        return max(SOON_S, (self.until_ms - now) / 1_000)

    def _look(self) -> None:
        try:
            if self._machine is self._driver.machine:
                self._driver.round()
            else:
                self._stopped = True
        except Exception:  # noqa: BLE001 - whatever it is, the connection must be looked after
            logger.exception("the thread that looks after a connection met an error, and goes on")
