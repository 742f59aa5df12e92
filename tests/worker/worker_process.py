"""A real `minibroker worker` in a process of its own, and what it says, as values."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from support import warm
from support.processes import DEADLINE_S, insists, look_until


class WorkerProcess:
    """Runs `minibroker worker app:app` on `source`, which is written to app.py in `folder`."""

    def __init__(self, folder: Path, url: str, source: str, *flags: str) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "app.py").write_text(source, "utf-8")
        self._log = folder / f"worker-{len(list(folder.glob('*.log')))}.log"
        self.process = warm.start_logged(
            ["worker", "app:app", "--log-format", "json", *flags],
            {**os.environ, "MINIBROKER_URL": url, "PYTHONDONTWRITEBYTECODE": "1"},
            self._log,
            folder=folder,
            start_new_session=True,  # no terminal, as under a service manager
        )

    @property
    def output(self) -> str:
        """All that it printed."""
        return self._log.read_text("utf-8", "replace")

    def events(self, name: str = "", **fields: Any) -> list[dict[str, Any]]:
        """Return what it said so far: events of this name with these fields."""
        whole = self.output.rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [
            line
            for line in lines
            if name in ("", line["event"])
            and all(line.get(field) == value for field, value in fields.items())
        ]

    def says(self, name: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait until it has said so `count` times; return the last of those."""
        look_until(
            lambda: len(self.events(name, **fields)) >= count, self.process, f"{name} {fields}"
        )
        return self.events(name, **fields)[count - 1]

    def says_at_the_end(self, name: str) -> dict[str, Any]:
        """Return an event of a worker that has ended."""
        found = self.events(name)
        assert found, self.output
        return found[0]

    def sees(self, *names: str) -> None:
        """Wait until its handlers have made these files."""
        look_until(
            lambda: all((self.folder / name).exists() for name in names), self.process, str(names)
        )

    def reads(self, name: str) -> str:
        """Wait until a handler has written something into a file, which it makes before that; return it."""
        path = self.folder / name
        look_until(lambda: path.exists() and path.stat().st_size > 0, self.process, name)
        return path.read_text("utf-8")

    def insists(self, number: int = signal.SIGTERM) -> None:
        """Send a signal again and again, until the end: one that follows the first in a moment is the same."""
        insists(self.process, number)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def ends(self) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """End it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
