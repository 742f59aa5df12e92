"""Programs that a test starts, watches and kills; none of them outlives the test run.

Nothing here sleeps: whoever waits for a state of the world waits on a process that is expected to go on,
looks whenever a slice of that wait is over, and learns at once when the process ends instead.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Protocol

DEADLINE_S = 60.0
LOOK_EVERY_S = 0.02

# The kernel ends the program when the test run dies without cleaning up (PR_SET_PDEATHSIG, 9).
# The setting survives exec, so the process that is left is exactly the program.
TETHER = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
)


class Process(Protocol):
    """What the tests use of subprocess.Popen."""

    @property
    def args(self) -> object:
        """What it was started with, for the text of a failing assert."""
        ...

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    @property
    def returncode(self) -> int | None:
        """The exit code, if somebody has asked since it ended."""
        ...

    def poll(self) -> int | None:
        """Return the exit code, None if it still runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; subprocess.TimeoutExpired if it still runs after `timeout`."""
        ...

    def send_signal(self, sig: int, /) -> None:
        """Send a signal, unless it has ended."""
        ...

    def terminate(self) -> None:
        """Send SIGTERM."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...


def lasts(process: Process, seconds: float) -> bool:
    """Wait for the end of a process, at most `seconds`; return whether it still runs."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def look_until(
    condition: Callable[[], bool],
    process: Process,
    what: str,
    deadline_s: float = DEADLINE_S,
) -> None:
    """Return when `condition` holds; fail when `process` ends before, or after `deadline_s`."""
    deadline = monotonic() + deadline_s
    while not condition():
        assert lasts(process, LOOK_EVERY_S) or condition(), f"{process.args!r} ended before {what}"
        assert monotonic() < deadline, f"{what}: not within {deadline_s} s"


def insists(process: Process, number: int = signal.SIGTERM) -> int:
    """Send a signal again and again until the process ends; return its exit code.

    One that follows the first in a moment counts as the same asking, so a second one is not enough.
    """
    deadline = monotonic() + DEADLINE_S
    while process.poll() is None:
        process.send_signal(number)
        lasts(process, LOOK_EVERY_S)
        assert monotonic() < deadline, f"{process.args!r} goes on however often it is asked"
    return process.wait()


async def ends_or(process: Process, condition: Callable[[], Awaitable[bool]]) -> int | None:
    """Wait until `process` ends (its exit code) or `condition` holds (None)."""
    deadline = monotonic() + DEADLINE_S
    while await asyncio.to_thread(lasts, process, LOOK_EVERY_S):
        if await condition():
            return None
        assert monotonic() < deadline, f"{process.args!r} goes on, and nothing happens"
    return process.returncode


def was_killed(code: int | None) -> bool:
    """Whether an exit code says SIGKILL."""
    return code == -signal.SIGKILL
