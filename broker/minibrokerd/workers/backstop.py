"""Ends a worker whose end does not come: by a thread, since the loop may be what is stuck.

An `async def` handler that blocks its loop, a task that swallows its cancellation, a thread that never returns, an
`atexit` that waits: each would keep a process that was asked to stop, and a service manager would kill it.
"""

from __future__ import annotations

import os
import threading

from minibrokerd.process import logs
from minibrokerd.process.logs import events


class Backstop:
    """A deadline for the process, started at the first asking for a stop; a further start replaces it."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def start(self, seconds: float, code: int) -> None:
        """End the process with `code` after so many seconds, if it is still there."""
        before, self._timer = self._timer, threading.Timer(seconds, _leave, (code,))
        self._timer.daemon = True
        self._timer.start()
        if before is not None:
            before.cancel()


def _leave(code: int) -> None:
    names = sorted(each.name for each in threading.enumerate() if not each.daemon)
    events.error("left_at_once", code=code, threads=", ".join(names))
    logs.flush()
    os._exit(code)
