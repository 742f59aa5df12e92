"""The services of the story, as a service manager has them: started, stopped, killed, and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic

from support.processes import TETHER, look_until

STOP_S = 60.0  # above every deadline of a stop: nothing may hang for so long


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """One command that is kept running."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        says: str,
    ) -> None:
        self.name = name
        self._says = says  # when it is ready
        self._said = 0
        self._command = command
        self._folder = folder
        self._environment = dict(environment)
        self._log = folder / f"{name}.log"
        self.slowest_stop_s = 0.0
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", TETHER, *self._command],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                start_new_session=True,  # as each service of a service manager
            )

    @property
    def output(self) -> str:
        """What it said in all its lives."""
        return self._log.read_text("utf-8", "replace")

    def start(self) -> None:
        """Start it again."""
        self._said = self.output.count(self._says)
        self.process = self._started()

    def await_ready(self) -> None:
        """Return when the present life has said that it is ready."""
        look_until(
            lambda: self.output.count(self._says) > self._said,
            self.process,
            f"{self.name} is ready",
            60,
        )

    def kill(self) -> None:
        """SIGKILL it; what it had started is not told."""
        self.process.kill()
        assert self.process.wait(STOP_S) == -signal.SIGKILL, self.output

    def ask(self) -> float:
        """Send SIGTERM; return the time."""
        self.process.terminate()
        return monotonic()

    def await_end(self, asked_s: float) -> None:
        """Wait for the end of a service that was asked to stop; it must be in good order."""
        code = self.process.wait(STOP_S)
        self.slowest_stop_s = max(self.slowest_stop_s, monotonic() - asked_s)
        assert code == 0, f"{self.name} stopped with {code}:\n{self.output[-4000:]}"

    def processes(self) -> list[int]:
        """Return the processes of this service, its own first."""
        found = [self.process.pid]
        for pid in found:
            try:
                text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
            except OSError:
                continue
            found += map(int, text.split())
        return found

    def close(self) -> None:
        """End it, and all that it started."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(STOP_S)
