"""Messages for an event loop of kombu, as Celery's worker has one: a thread waits, and a pipe says that there
is something.

With a loop the pool of processes takes tasks without blocking who hands them out, so a worker whose processes
are all busy goes on to hear control. The thread leads the polling of the client, as any thread that waits; all
else happens in that of the loop.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from minibroker.contract.errors import MinibrokerError
from minibroker.contrib.celery.intake import Intake
from minibroker.sync.consumer import Consumer

logger = logging.getLogger("minibroker.contrib.celery")


class Pump:
    """One thread and one pipe: each `wait_for` is answered by one call of `on_ready` in the loop."""

    def __init__(self, intake: Intake, loop: Any, on_ready: Callable[[], None]) -> None:
        self._intake = intake
        self._loop = loop
        self._on_ready = on_ready
        self._reads, self._writes = os.pipe()
        self._asked = threading.Event()
        self._wanted: tuple[Sequence[Consumer[Any]], float] = ((), 0.0)
        self._stopped = False
        self._pid = os.getpid()
        loop.add_reader(self._reads, self._ready)
        self._thread = threading.Thread(target=self._run, daemon=True, name="minibroker-pump")
        self._thread.start()

    def wait_for(self, consumers: Sequence[Consumer[Any]], seconds: float) -> None:
        """Have `on_ready` called when one of them has something, or after so long."""
        self._wanted = (consumers, seconds)
        self._asked.set()

    def stop(self) -> None:
        """Let the thread end, and give the pipe back; nothing in a child of a fork, whose loop is its parent's."""
        if self._stopped or self._pid != os.getpid():
            return
        self._stopped = True
        self._asked.set()
        with suppress(MinibrokerError):
            self._intake.wake()
        self._thread.join(5)
        with suppress(
            OSError, ValueError, KeyError
        ):  # the loop may have forgotten it, or be closed
            self._loop.remove_reader(self._reads)
        os.close(self._reads)
        os.close(self._writes)

    def _ready(self) -> None:
        os.read(self._reads, 1)
        self._on_ready()

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._stopped:
                return
            try:
                self._intake.wait(*self._wanted)
            except MinibrokerError as error:  # who drains looks, and says so to Celery
                logger.debug("the wait for messages ended: %s", error)
            if self._stopped:
                return
            os.write(self._writes, b"m")
