"""Documentation pages as programs: their files are written, their commands run, their output compared.

A ``python`` block whose first line is `# NAME.py` is that file, in a folder that a command made if it names one.
In a ``console`` block, lines that start with `$ ` are commands, all run by one bash so that jobs (`&`, `kill %1`)
work; the other lines are what they print, where `...` stands for anything, and alone on a line for any lines. Jobs
print when they get to it, so the lines of one block may come in any order, and the block ends with the last.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_RUN = ("pip install",)  # tests/packaging installs the wheel into an empty environment
DEADLINE_S = 30.0


class Page:
    """One page, run in an empty directory on two free ports: that of the broker, and that of its HTTP."""

    def __init__(self, path: Path, directory: Path, port: int, http_port: int) -> None:
        self._text = path.read_text("utf-8")
        self._directory = directory
        self._ports = {"7272": str(port), "7273": str(http_port)}
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        url = f"minibroker://127.0.0.1:{port}"
        # As a reader's shell: with it, lines of two programs run into each other.
        readers = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
        bin_path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        ours = {"MINIBROKER_URL": url, "MINIBROKER_PORT": str(port), "PATH": bin_path}
        ours |= {"MINIBROKER_HTTP": f"127.0.0.1:{http_port}", "MINIBROKER_NO_HTTP": "0"}
        self._bash = subprocess.Popen(
            ["bash", "-m"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=directory,
            env={**readers, **ours},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def run(self) -> None:
        """Do what the page says, from top to bottom; AssertionError names the block that is not true."""
        for kind, block in BLOCK.findall(self._text):
            if kind == "python":
                self._write(block)
            elif kind == "console":
                self._console(block)

    def close(self) -> None:
        """End bash and every job of it that still runs."""
        assert self._bash.stdin is not None
        if self._bash.poll() is None:
            self._bash.stdin.write("kill -KILL $(jobs -p)\nexit\n")
            self._bash.stdin.close()
        try:
            self._bash.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._bash.pid, signal.SIGKILL)
            self._bash.wait()
        self._reader.join(DEADLINE_S)  # the output ends with the last job that could write to it

    def _write(self, block: str) -> None:
        name = re.match(r"# ([\w/]+\.py)\n", block)
        if name is not None:
            (self._directory / name[1]).write_text(block, "utf-8")

    def _console(self, block: str) -> None:
        expected: list[str] = []
        for line in block.splitlines():
            if line.startswith("$ "):
                self._type(line[2:])
            elif line:
                expected.append(self._with_ports(line))
        # What follows is printed when the last command has ended.
        self._type("echo the block has ended")
        expected.append("the block has ended")
        self._compare(expected, block)

    def _type(self, command: str) -> None:
        assert self._bash.stdin is not None
        if not command.startswith(NOT_RUN):
            self._bash.stdin.write(self._with_ports(command) + "\n")
            self._bash.stdin.flush()

    def _with_ports(self, line: str) -> str:
        for usual, ours in self._ports.items():
            line = line.replace(usual, ours)
        return line

    def _compare(self, expected: list[str], block: str) -> None:
        deadline = monotonic() + DEADLINE_S
        printed: list[str] = []
        cut = "..." in expected
        expected = [line for line in expected if line != "..."]
        while expected:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"missing: {expected}\nprinted: {printed}\nin:\n{block}"
            printed.append(line)
            fits = [pattern for pattern in expected if _fits(pattern, line)]
            assert fits or cut or not line, (
                f"not on the page: {line!r}\nmissing: {expected}\nin:\n{block}"
            )
            if fits:
                expected.remove(fits[0])

    def _read(self) -> None:
        assert self._bash.stdout is not None
        with self._bash.stdout as output:
            for line in output:
                self._lines.put(line.rstrip())
        self._lines.put(None)


def _fits(pattern: str, line: str) -> bool:
    parts = map(re.escape, (" ".join(part.split()) for part in pattern.split("...")))
    return re.fullmatch(" ?.*? ?".join(parts), " ".join(line.split())) is not None
