"""Messages for an event loop of kombu, as Celery's worker has one: the loop itself watches the connection.

With a loop the pool of processes takes tasks without blocking who hands them out, so a worker whose processes
are all busy goes on to hear control. No thread stands between the connection and the loop: its descriptor is one
of those that the loop polls. What other threads read, as one that waits for an answer may, they ring for.

A connection that is lost leaves the loop, and comes in again when its consumers have been asked for on the next
one; until then it is the keeper's (sync/keeper.py).

Where tasks run in processes, one turn of the loop hears that some are over, and hands others out. What it says of
them is written once, when it has been round: before the poll behind which a process is sent its task.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from typing import Any

from minibroker.shell.real_threads import Bell
from minibroker.sync.driver import Driver

_GONE = (OSError, ValueError, KeyError, AttributeError)  # out of a loop that was closed, or emptied


class Pump:
    """A connection in a loop: `on_ready` is called there when there may be something, and when somebody rang."""

    def __init__(
        self, driver: Driver, loop: Any, on_ready: Callable[[], None], look_s: float | None
    ) -> None:
        """Begin; `look_s`: it is called as often as that, too."""
        self._driver = driver
        self._loop = loop
        self._on_ready = on_ready
        self._bell = Bell()
        self._rings = False
        self._link: Any = None  # the one that the loop watches
        self._descriptor = -1
        self._is_due = False
        self._stopped = False
        self._pid = os.getpid()
        self._thread = get_ident()
        self._owes = False
        loop.on_tick.add(self._write)
        loop.add_reader(self._bell.fileno(), self._rung)
        self._looks = None if look_s is None else loop.call_repeatedly(look_s, self._turn)
        self.ring()

    def ring(self) -> None:
        """Have it called soon; any thread may ring."""
        if not self._rings:
            self._rings = True
            self._bell.ring()

    def later(self, seconds: float) -> None:
        """Have it called after that, if it is not to be called earlier already; for the thread of the loop."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(seconds, self._due)

    def owes(self) -> bool:
        """Have what is said in this turn written before the loop polls; False: this is not its thread."""
        if self._stopped or get_ident() != self._thread:
            return False
        self._owes = True
        return True

    def stop(self) -> None:
        """Leave the loop; nothing in a child of a fork, whose loop is its parent's."""
        if self._stopped or self._pid != os.getpid():
            return
        self._stopped = True
        if self._looks is not None:
            self._looks.cancel()
        self._loop.on_tick.discard(self._write)
        self._write()
        with suppress(*_GONE):
            self._loop.remove_reader(self._bell.fileno())
        self._unwatch()
        self._driver.look_after()
        self._bell.close()

    def _write(self) -> None:
        if self._owes:
            self._owes = False
            with self._driver:
                pass

    def _rung(self) -> None:
        self._bell.hear()
        self._rings = False  # before the look: who rings behind it is heard
        self._turn()

    def _due(self) -> None:
        self._is_due = False
        self._turn()

    def _turn(self) -> None:
        if not self._stopped:
            self._on_ready()
        if not self._stopped:
            self._watch()

    def _watch(self) -> None:
        """Have the loop watch the connection that there is now."""
        link = self._driver.link
        descriptor = link.fileno() if link is not None and link.is_open else -1
        if descriptor < 0:
            link = None
        if link is self._link:
            return
        self._unwatch()
        self._link, self._descriptor = link, descriptor
        if link is None:
            self._driver.look_after()
        else:
            self._loop.add_reader(descriptor, self._turn)

    def _unwatch(self) -> None:
        """Take the descriptor out, if it is still ours: of a socket that was closed it may be another's by now."""
        link, self._link = self._link, None
        if link is None or self._loop.readers.get(self._descriptor) != (self._turn, ()):
            return
        with suppress(*_GONE):
            self._loop.remove_reader(self._descriptor)
