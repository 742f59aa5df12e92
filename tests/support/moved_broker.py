"""A broker whose time can be moved on: run it in place of `python -m minibrokerd`.

At each SIGUSR2 the log time jumps by MOVE_MS, and what is due by then comes as it would have come in its time. So
the end of a lease that is far longer than any machine is late needs no waiting.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from minibrokerd.cli.main import main
from minibrokerd.engine.engine import Engine
from minibrokerd.serving import server


class MovedEngine(Engine):
    """The engine, with a hand at its clock."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._loop.add_signal_handler(signal.SIGUSR2, self.move)

    def move(self) -> None:
        """Let time pass at once."""
        self.clock._offset_ms += int(os.environ["MOVE_MS"])
        self._alarm.forget()
        self._alarm.set(self._core.next_deadline_ms(), self.clock)


if __name__ == "__main__":
    server.Engine = MovedEngine  # type: ignore[misc,attr-defined]
    sys.exit(main())
