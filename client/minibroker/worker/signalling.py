"""Signals to a process whose exit code somebody else waits for."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol


class Process(Protocol):
    """One that was started here; `asyncio.subprocess.Process` is one."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    @property
    def returncode(self) -> int | None:
        """Its exit code, once that is known."""
        ...


def send(process: Process, number: int) -> None:
    """Send a signal to a process, unless it is known to have ended.

    `send_signal` of asyncio's looks by itself first whether it has (`Popen.poll`), and so may take the exit code
    away from the loop, which then reports 255.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
