"""`minibroker bridge` as a test starts it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import warm
from support.broker import BrokerServer

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("MINIBROKER_")}


class RunningBridge:
    """`minibroker bridge` in a process of its own; what it prints goes to a file.

    Forked where that is the same: only the first one of a run is started as a user does.
    """

    def __init__(self, folder: Path, server: BrokerServer, *words: str) -> None:
        self._output = folder / "bridge-output"
        environment = {**CLEAN, "MINIBROKER_URL": server.url}
        self.process = warm.start_logged(
            ["bridge", *words],
            environment,
            self._output,
            is_forked=not warm.is_first(["bridge"]),
        )

    @property
    def printed(self) -> str:
        """All that bridges of this test have printed."""
        return self._output.read_text("utf-8")

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it said with --json, as far as lines are whole."""
        lines = self.printed.rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def said(self, event: str) -> bool:
        """Whether it has told of such an event."""
        return any(each["event"] == event for each in self.events)

    @property
    def handed_over(self) -> int:
        """How many it had handed over when it said so last."""
        return next((each["handed_over"] for each in self.events[::-1] if "handed_over" in each), 0)

    def stop(self) -> None:
        """Ask it to stop; it must do so in good order."""
        self.process.terminate()
        self.ends()

    def ends(self, code: int = 0) -> str:
        """Wait for its end, which has this exit code; return what was printed."""
        try:
            found = self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on:\n{self.printed}") from None
        assert found == code, self.printed
        return self.printed


Run = Callable[..., RunningBridge]
