"""A real broker in a process of its own, for tests that kill it and look at what is left.

`BrokerServer` blocks for the few hundred milliseconds that a start takes. An async test that wants
its event loop to go on meanwhile says `await asyncio.to_thread(server.restart)`.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import IO, Protocol

from support import warm
from support.processes import Process, look_until
from support.warm import COMMAND

# Far above what a start takes: they end a test of a broker that hangs, and measure nothing.
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 60.0
_LIMITING = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


def with_files(most: int) -> Sequence[str]:
    """Return the command of a broker that may have so many files open, connections among them."""
    return (sys.executable, "-c", _LIMITING, str(most), *COMMAND)


LISTENING = re.compile(r"listening on (?P<host>\S+):(?P<port>\d+)")

# The kernel ends the broker when the test run dies without cleaning up (PR_SET_PDEATHSIG, 9).
# The setting survives exec, so the process that is left is exactly `python -m minibrokerd`.
_TETHERED = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
)


class BrokerServer:
    """One data directory and the broker that runs on it, started by the constructor.

    `flags` are those of `serve`. After a `restart` the directory and the port are the same, so clients
    find the new process. Where that is the same, the process is forked off one that has imported the server
    (support/warm.py); `is_warm=False` is for tests of the start itself, or of how much memory there is.
    """

    def __init__(
        self,
        data_dir: Path,
        *flags: str,
        port: int = 0,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
        is_warm: bool = True,
    ) -> None:
        self.data_dir = data_dir
        self.flags = flags
        self.command = command
        self.is_warm = is_warm
        self.host = "127.0.0.1"
        self.port = port
        self.lines: list[str] = []  # all that it printed, over all its lives
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._reader: threading.Thread | None = None
        self.process = self._start()

    @property
    def url(self) -> str:
        """The address for `minibroker.connect`."""
        return f"minibroker://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the present life."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process of the present life has not ended."""
        return self.process.poll() is None

    @property
    def output(self) -> str:
        """What the broker printed so far, for the text of a failing assert."""
        return "\n".join(self.lines)

    def prints(self, text: str) -> None:
        """Wait until it has printed a text: its answers and its lines come by two pipes, in any order."""

        def has_printed() -> bool:
            if not self.running:
                self._wait()  # it may have been quicker than whoever reads
            return text in self.output

        look_until(has_printed, self.process, text)

    def kill(self) -> None:
        """End the process by SIGKILL, at once, and check that this is what ended it."""
        self.process.kill()
        code = self._wait()
        assert code == -signal.SIGKILL, f"the broker had ended before, with {code}:\n{self.output}"

    def stop(self) -> int:
        """Ask the process to stop by SIGTERM and return its exit code."""
        self.process.terminate()
        try:
            return self._wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"no stop within {STOP_DEADLINE_S} s:\n{self.output}") from None

    def restart(self) -> None:
        """Start again, same directory and port; a process that still runs is stopped first."""
        if self.running:
            code = self.stop()
            assert code == 0, f"the broker stopped with {code}:\n{self.output}"
        self.process = self._start()

    def close(self) -> None:
        """End the process if it still runs, whatever state it is in."""
        if self.running:
            self.process.kill()
        self._wait()

    def launch(self) -> Process:
        """Start a process that may never listen; it is the present life, and what it prints is in `lines`."""
        self.process, output = self._popen()
        self._read(output)
        return self.process

    def _start(self) -> Process:
        process, output = self._popen()
        try:
            self._wait_for_port(process, output)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process

    def _popen(self) -> tuple[Process, IO[str]]:
        address = ["--data-dir", str(self.data_dir), "--port", str(self.port)]
        words = ["serve", *address, *self.flags]
        if self.is_warm and self.command == COMMAND and warm.fits(words, self._env):
            return warm.with_output(words, self._env)
        # The death signal is tied to the thread that starts the process; only the main one stays.
        tethered = sys.platform == "linux" and threading.current_thread() is threading.main_thread()
        launch = [sys.executable, "-I", "-S", "-c", _TETHERED] if tethered else []
        process = subprocess.Popen(
            [*launch, *self.command, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._env,
        )
        assert process.stdout is not None
        return process, process.stdout

    def _wait_for_port(self, process: Process, output: IO[str]) -> None:
        arrived = self._read(output)
        deadline = monotonic() + START_DEADLINE_S
        while True:
            try:
                line = arrived.get(timeout=max(0.0, deadline - monotonic()))
            except queue.Empty:
                raise AssertionError(
                    f"not listening after {START_DEADLINE_S} s:\n{self.output}"
                ) from None
            if line is None:
                raise AssertionError(f"the broker ended with {process.wait()}:\n{self.output}")
            if found := LISTENING.search(line):
                self.host, self.port = found["host"], int(found["port"])
                return

    def _wait(self) -> int:
        """Return the exit code, with all in `lines` that was printed before the end."""
        code = self.process.wait(STOP_DEADLINE_S)
        if self._reader is not None:
            self._reader.join(STOP_DEADLINE_S)
        return code

    def _read(self, output: IO[str]) -> queue.SimpleQueue[str | None]:
        arrived: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._drain, args=(output, arrived), daemon=True)
        self._reader.start()
        return arrived

    def _drain(self, output: IO[str], arrived: queue.SimpleQueue[str | None]) -> None:
        # Read to the end, in a thread: a broker whose pipe is full would stop at its next log line.
        with output:
            for line in output:
                self.lines.append(line.rstrip("\n"))
                arrived.put(line)
        arrived.put(None)


class StartBroker(Protocol):
    """The type of the `start_broker` fixture."""

    def __call__(
        self, *flags: str, data_dir: Path | None = None, env: Mapping[str, str] | None = None
    ) -> BrokerServer:
        """Start a broker with these flags of `serve`, on a fresh directory unless one is given."""
        ...
