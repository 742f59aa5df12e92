"""The thread that looks after a connection while no caller does: while handlers compute, between two calls.

It writes acks that nobody waits for, reads what comes, keeps the signs of life going, and connects again when the
connection is lost, so that leases are kept. It starts with the first message that is begun, or the first consumer;
a program that only publishes has no such thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from minibroker.session.machine import Machine
from minibroker.shell.monotonic import now_ms
from minibroker.shell.real_threads import Bell, start_thread
from minibroker.shell.telling import logger

SOON_S: Final = 0.005  # acks that share a frame wait no longer
BUSY_S: Final = 0.02  # while there is no connection
# A connection that is lost is noticed after that: within the server's wait for a resume.
IDLE_S: Final = 0.25
WATCHED_S: Final = 2.5  # a loop polls the connection itself: the keeper does what is due


class Owner(Protocol):
    """The driver that is looked after."""

    machine: Machine
    clock: Callable[[], float]  # seconds
    last_write: float
    todo: deque[Callable[[], object]]

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
        self._looked_s = driver.clock()
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
        """Let what waits be written within a few ms; not at once, or no two acks would share a frame."""
        if self._sleeps:
            self._sleeps = False
            self._bell.ring()

    def close_copy(self) -> None:
        """In a forked child, where the thread does not run: give the descriptors back."""
        self._bell.close()

    def _run(self) -> None:
        while not self._stopped:
            self._sleeps = True  # before it is looked: what is noted from here on rings
            if self._is_calm():
                self._bell.wait(self._calm_s())
                is_due = self._sleeps  # nobody rang
            else:
                self._sleeps = False
                self._bell.wait(self._soon_s())
                is_due = not self._machine.session.is_open or self._since_write_s() >= SOON_S
            self._sleeps = False
            if not self._stopped and (is_due or self._driver.clock() - self._looked_s >= IDLE_S):
                self._look()
        self._bell.close()

    def _is_calm(self) -> bool:
        """Nothing waits, nor did a moment ago: or each message of a busy consumer would ring."""
        session = self._machine.session
        waits = session.owing or self._driver.todo or self._since_write_s() < SOON_S
        return bool(session.is_open and not waits)

    def _since_write_s(self) -> float:
        """Return how long at the most anything waits: a write takes all that does."""
        return self._driver.clock() - self._driver.last_write

    def _soon_s(self) -> float:
        if not self._machine.session.is_open:
            return BUSY_S
        left_s = SOON_S - self._since_write_s()
        return left_s if left_s > 0 else SOON_S

    def _calm_s(self) -> float:
        if not self.is_watched:
            return IDLE_S
        now = now_ms()
        self.until_ms = min(now + int(WATCHED_S * 1_000), self._machine.timers.wake_ms)
        return max(SOON_S, (self.until_ms - now) / 1_000)

    def _look(self) -> None:
        self._looked_s = self._driver.clock()
        try:
            if self._machine is self._driver.machine:
                self._driver.round()
            else:
                self._stopped = True
        except Exception:  # noqa: BLE001 - whatever it is, the connection must be looked after
            logger.exception("the thread that looks after a connection met an error, and goes on")
