"""The wish to stop, caught from the first moment on, whatever the process is doing.

The first SIGTERM or SIGINT asks for a stop in good order. The second one ends the process there and then. These
are handlers of the interpreter and not of the event loop: they also run while the loop recovers a log or waits for
a disk.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import NoReturn

from minibrokerd import exits


def leave_at_once() -> NoReturn:
    """End the process as a crash would."""
    os.write(2, b"minibroker: asked to stop twice: leaving at once, as after a crash\n")
    os._exit(exits.DRAIN)


class StopSignals:
    """Catches the signals. `asked` names the first one (empty: none came); `on_second` is called at the second."""

    def __init__(self) -> None:
        self.asked = ""
        self.on_second: Callable[[], object] = leave_at_once
        self._on_first: Callable[[], object] | None = None

    def catch(self) -> None:
        """Take both signals over from the interpreter."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._caught)

    def call(self, on_first: Callable[[], object]) -> None:
        """Call `on_first`, in the signal's handler, when a stop is asked for: now, if it was before."""
        self._on_first = on_first
        if self.asked:
            on_first()

    def _caught(self, number: int, _: object) -> None:
        if self.asked:
            self.on_second()
            return
        self.asked = signal.Signals(number).name
        if self._on_first is not None:
            self._on_first()
