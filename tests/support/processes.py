"""Programs that a test starts, watches and kills; none of them outlives the test run.

Nothing here sleeps: whoever waits for a state of the world waits on a process that is expected to go on,
looks whenever a slice of that wait is over, and learns at once when the process ends instead.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic

DEADLINE_S = 30.0
LOOK_EVERY_S = 0.02

# The kernel ends the program when the test run dies without cleaning up (PR_SET_PDEATHSIG, 9).
# The setting survives exec, so the process that is left is exactly the program.
TETHER = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
)


class Script:
    """A Python file that runs in a process of its own; what it prints is kept in a file."""

    def __init__(self, path: Path, *arguments: object, log: Path) -> None:
        self.log = log
        command = [sys.executable, str(path), *map(str, arguments)]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", TETHER, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def output(self) -> str:
        """What it printed, for the text of a failing assert."""
        return self.log.read_text("utf-8", "replace")

    def stop(self) -> None:
        """Ask it to stop by SIGTERM, and check that it did so in good order."""
        self.process.terminate()
        code = self.process.wait(DEADLINE_S)
        assert code == 0, f"{self.process.args!r} ended with {code}:\n{self.output}"

    def close(self) -> None:
        """End it if it still runs, whatever state it is in."""
        if self.running:
            self.process.kill()
        self.process.wait()


def lasts(process: subprocess.Popen[str] | subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for the end of a process, at most `seconds`; return whether it still runs."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def look_until(
    condition: Callable[[], bool],
    process: subprocess.Popen[str] | subprocess.Popen[bytes],
    what: str,
    deadline_s: float = DEADLINE_S,
) -> None:
    """Return when `condition` holds; fail when `process` ends before, or after `deadline_s`."""
    deadline = monotonic() + deadline_s
    while not condition():
        assert lasts(process, LOOK_EVERY_S), f"{process.args!r} ended before {what}"
        assert monotonic() < deadline, f"{what}: not within {deadline_s} s"


def insists(
    process: subprocess.Popen[str] | subprocess.Popen[bytes], number: int = signal.SIGTERM
) -> int:
    """Send a signal again and again until the process ends; return its exit code.

    One that follows the first in a moment counts as the same asking, so a second one is not enough.
    """
    deadline = monotonic() + DEADLINE_S
    while process.poll() is None:
        process.send_signal(number)
        lasts(process, LOOK_EVERY_S)
        assert monotonic() < deadline, f"{process.args!r} goes on however often it is asked"
    return process.returncode


async def ends_or(
    process: subprocess.Popen[bytes], condition: Callable[[], Awaitable[bool]]
) -> int | None:
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
