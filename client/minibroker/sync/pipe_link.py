"""A connection to a broker in this process, with the names of `Link`: nothing of it blocks, and it is polled."""

from __future__ import annotations

import os
from time import monotonic
from typing import Any, Final

from minibroker.session.timers import Timers
from minibroker.shell.real_threads import Bell
from minibroker.sync.link import READABLE, WRITABLE

NEVER_S: Final = float("inf")


class PipeLink:
    """The connection. Whoever uses it steps the broker; its descriptor can be read when the broker has something.

    The broker's next timer stands among those of the machine, so that who waits looks at it in time.
    """

    def __init__(self, broker: Any, timers: Timers) -> None:
        self.is_open = False
        self._broker = broker
        self._timers = timers
        self._bell = Bell()
        self._pid = os.getpid()
        self._armed_s = NEVER_S
        # Both only ring: they are called with the broker's lock held, and by other threads.
        self._pipe = broker.connect(self._bell.ring, self._bell.ring)

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._bell.fileno()

    def awaits(self) -> int:
        """Return what to poll for: until `proceed` was called, it can be written, as a socket that has opened."""
        return READABLE if self.is_open else READABLE | WRITABLE

    def proceed(self) -> bool:
        """Return whether it has just been opened."""
        was_open, self.is_open = self.is_open, True
        return not was_open

    def write(self, data: bytes) -> None:
        """Hand over frames; what follows from them has been done when this returns."""
        self._pipe.write((data,))
        self._arm()

    def read(self) -> bytes:
        """Return what has come; nothing if nothing has. ConnectionResetError: the broker has ended it."""
        self._bell.hear()
        data: bytes = self._pipe.read()
        if not data and self._pipe.is_ended:
            raise ConnectionResetError("the broker closed the connection")
        self._arm()
        return data

    def close(self) -> None:
        """End it; in a forked child: this process's copy."""
        if self._pid == os.getpid():
            self._pipe.close()
        self._bell.close()

    def _arm(self) -> None:
        wait_s = self._broker.wait_s()
        if wait_s is None:
            return
        due_s = monotonic() + wait_s
        if due_s < self._armed_s:
            self._armed_s = due_s
            self._timers.at(int(due_s * 1000) + 1, self._due)

    def _due(self, now_ms: int) -> None:
        self._armed_s = NEVER_S
        if not self._pipe.is_ended:
            self._broker.step()
            self._arm()
