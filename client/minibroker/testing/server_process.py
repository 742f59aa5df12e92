"""A real broker in a process of its own, for tests that need one: on a free port, with a small data directory."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Final

START_S: Final = 30.0
STOP_S: Final = 15.0
# Five of them are allocated; a message may have its full size.
SEGMENT_BYTES: Final = 4 * 1024 * 1024
LISTENING: Final = re.compile(r"listening on (\S+)")
# The kernel ends the broker when the test run dies without cleaning up (PR_SET_PDEATHSIG, SIGKILL); it stays set
# over exec.
_TETHERED: Final = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
)


class ServerProcess:
    """A `minibroker serve` on `data_dir`, from `start` to `close`; after `restart` its address is the same.

    Raises:
        RuntimeError: it did not start; the text has what it printed.
    """

    def __init__(self, data_dir: Path | str) -> None:
        self.data_dir = Path(data_dir)
        self.lines: list[str] = []  # all that it printed, over all its lives
        self._address = ""
        self._process: subprocess.Popen[str] | None = None
        self._arrived: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    @property
    def url(self) -> str:
        """What clients connect to, in this process and in others."""
        return f"minibroker://{self._address}"

    @property
    def pid(self) -> int:
        """The process id of its present life; 0: it was never started."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start it; returns when it listens."""
        port = self._address.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", "minibrokerd", "serve", "--port", port]
        command += ["--data-dir", str(self.data_dir), "--segment-bytes", str(SEGMENT_BYTES)]
        command += ["--no-http"]
        # The death signal is tied to the thread that starts the process; only the main one stays.
        if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
            command = [sys.executable, "-I", "-S", "-c", _TETHERED, *command]
        variables = {name: os.environ[name] for name in os.environ if "MINIBROKER" not in name}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=variables | {"PYTHONUNBUFFERED": "1"},
        )
        self._arrived = queue.SimpleQueue()
        threading.Thread(
            target=self._read, args=(self._process, self._arrived), daemon=True
        ).start()
        try:
            self._address = self._wait_for_port()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it by SIGKILL, as a crash of the machine would end it; nothing that was confirmed is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Stop it in good order."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def restart(self) -> None:
        """Start it again on the same port and directory; one that still runs is stopped first."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it, whatever state it is in."""
        self.kill()

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _wait_for_port(self) -> str:
        deadline_s = monotonic() + START_S
        while True:
            try:
                line = self._arrived.get(timeout=max(0.0, deadline_s - monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                printed = "\n".join(self.lines)
                raise RuntimeError(f"the broker did not start within {START_S:g} s:\n{printed}")
            found = LISTENING.search(line)
            if found:
                return found[1]

    def _read(self, process: subprocess.Popen[str], arrived: queue.SimpleQueue[str | None]) -> None:
        # To the end, in a thread: a broker whose pipe is full would lose lines of its log.
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines.append(line.rstrip("\n"))
                arrived.put(line)
        arrived.put(None)
