"""A broker that is expected to end: started, listened to, and asked how it ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Timer
from time import time

from support.broker import LISTENING
from support.processes import TETHER

SEGMENT_BYTES = 64 * 1024
FLAGS = ("--port", "0", "--segment-bytes", str(SEGMENT_BYTES))
TETHERED = (sys.executable, "-I", "-S", "-c", TETHER)
DEADLINE_S = 120.0  # of a whole life, under strace


class SabotagedBroker:
    """One life of a broker; `port` is 0 if it ended before it listened."""

    def __init__(self, command: Sequence[str], data_dir: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*TETHERED, *command, "serve", "--data-dir", str(data_dir), *FLAGS],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        self._guard = Timer(DEADLINE_S, self._process.kill)
        self._guard.start()
        self.port = self._listen()

    def _listen(self) -> int:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := LISTENING.search(line):
                return int(found["port"])
        return 0

    def stop(self) -> None:
        """Ask it to stop."""
        self._process.terminate()

    def end(self) -> tuple[int, float]:
        """Wait for its end; return the exit code and when (wall time) it ended."""
        code = self._process.wait(DEADLINE_S + 5)
        ended_s = time()
        self._guard.cancel()
        assert self._process.stdout is not None
        with self._process.stdout as output:
            output.read()  # to the end: strace has written its trace then
        return code, ended_s

    @property
    def output(self) -> str:
        """What it logged."""
        return self._log.read_text("utf-8", "replace")
