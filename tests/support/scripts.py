"""Files of Python that a test runs in a process of their own, and ends."""

from __future__ import annotations

import os
from pathlib import Path

from support import warm
from support.processes import DEADLINE_S


class Script:
    """A Python file that runs in a process of its own; what it prints is kept in a file."""

    def __init__(self, path: Path, *arguments: object, log: Path) -> None:
        self.log = log
        words, environment = [*map(str, arguments)], {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = warm.start_logged(words, environment, log, file=path)

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
