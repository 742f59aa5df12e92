"""`minibroker bridge` as a test starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.broker import BrokerServer
from support.processes import TETHER

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("MINIBROKER_")}


class RunningBridge:
    """`minibroker bridge` in a process of its own; what it prints goes to a file."""

    def __init__(self, folder: Path, server: BrokerServer, *words: str) -> None:
        self._output = folder / "bridge-output"
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    TETHER,
                    sys.executable,
                    "-m",
                    "minibrokerd",
                    "bridge",
                    *words,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**CLEAN, "MINIBROKER_URL": server.url},
            )

    @property
    def printed(self) -> str:
        """All that bridges of this test have printed."""
        return self._output.read_text("utf-8")

    def ends(self, code: int = 0) -> str:
        """Wait for its end, which has this exit code; return what was printed."""
        try:
            found = self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on:\n{self.printed}") from None
        assert found == code, self.printed
        return self.printed


Run = Callable[..., RunningBridge]
