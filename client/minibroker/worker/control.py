"""How a worker is ended from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Control:
    """Ends a worker from outside, in its loop: `stop` drains, `hurry` lets nothing run on.

    `on_stop` is called at the first asking, whoever asks.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.stopped = asyncio.Event()
        self.stopped_at = 0.0  # loop time
        self.hurried = asyncio.Event()
        self.on_stop: Callable[[], object] = lambda: None

    def stop(self, reason: str) -> None:
        """Take nothing new, and finish what runs; the first reason counts."""
        if not self.stopped.is_set():
            self.reason = reason
            self.stopped_at = asyncio.get_running_loop().time()
            self.stopped.set()
            self.on_stop()

    def hurry(self) -> None:
        """Cancel what runs."""
        self.stop("asked twice")
        self.hurried.set()
