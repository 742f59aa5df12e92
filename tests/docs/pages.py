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
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic

from support import warm
from support.source import ROOT

GUIDES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/guide/*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_RUN = ("pip install",)  # tests/packaging installs the wheel into an empty environment
USUAL = ("7272", "7273", "7282", "7283")  # a page has a broker, its HTTP, and a second of both
# What a page starts is forked. Not where that is not the same: what is killed outright, and followed by another
# at once in its place, and what limits are set for. A job of the shell is the process that asks: signals go to it.
FORKED = """
minibroker() {
    case "$BASH_SUBSHELL $1" in
        "1 serve"|"1 worker") exec %s "$@" ;;
        *) %s "$@" ;;
    esac
}
trap 'kill -KILL $(jobs -p)' EXIT
"""
PROGRAMS = Path(sys.executable).parent
KILLED = "kill -KILL"
LIMITED = "ulimit -"
DEADLINE_S = 60.0
ENDS_S = 20.0
LOOKS_S = 10.0  # how long a reader waits for what a line should print, before the next one


class Output:
    """What a block prints, and what of it has not come yet."""

    def __init__(self, block: str, expected: list[str], *, is_cut: bool) -> None:
        self.missing = [line for line in expected if line != "..."]
        self._block = block
        self._printed: list[str] = []
        self._is_cut = is_cut

    def take(self, line: str) -> None:
        """Cross a printed line off; AssertionError if it does not stand there."""
        self._printed.append(line)
        fits = [pattern for pattern in self.missing if _fits(pattern, line)]
        assert fits or self._is_cut or not line, f"not on the page: {line!r}\n{self}"
        if fits:
            self.missing.remove(fits[0])

    def __str__(self) -> str:
        return f"missing: {self.missing}\nprinted: {self._printed}\nin:\n{self._block}"


class Page:
    """One page, run in an empty directory on free ports."""

    def __init__(self, path: Path, directory: Path, ports: list[int]) -> None:
        self._text = path.read_text("utf-8")
        self._directory = directory
        self._ports = dict(zip(USUAL, map(str, ports), strict=True))
        port, http_port, *_ = ports
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        url = f"minibroker://127.0.0.1:{port}"
        # As a reader's shell: with it, lines of two programs run into each other.
        readers = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
        forked, warmer = warm.for_shells()
        bin_path = f"{PROGRAMS}:{os.environ['PATH']}"
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
            pass_fds=[warmer],
        )
        assert self._bash.stdin is not None
        # It ends with its input, so with the tests, too, however they end; and with it what it started.
        self._bash.stdin.write(FORKED % (forked, forked))
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
            self._bash.stdin.close()
        try:
            self._bash.wait(ENDS_S)
        except subprocess.TimeoutExpired:  # it is in a loop, and does not read what it is told
            for pid in filter(self._has, map(int, filter(str.isdigit, os.listdir("/proc")))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._bash.wait()
        self._reader.join(DEADLINE_S)  # the output ends with the last job that could write to it

    def _has(self, pid: int) -> bool:
        """Whether a process is of the session of bash, as all its jobs are."""
        try:
            return os.getsid(pid) == self._bash.pid
        except ProcessLookupError:
            return False

    def _write(self, block: str) -> None:
        name = re.match(r"# ([\w/]+\.py)\n", block)
        if name is not None:
            (self._directory / name[1]).write_text(self._with_ports(block), "utf-8")

    def _console(self, block: str) -> None:
        steps: list[tuple[str, list[str]]] = [("true", [])]
        for line in filter(None, block.splitlines()):
            if line.startswith("$ "):
                steps.append((line[2:], []))
            else:
                steps[-1][1].append(self._with_ports(line))
        # What follows is printed when the last command has ended.
        steps.append(("echo the block has ended", ["the block has ended"]))
        missing = [line for _, lines in steps for line in lines]
        output = Output(block, missing, is_cut="..." in missing)
        for index, (command, _) in enumerate(steps, 1):
            self._type(command)
            # As a reader, who types the next line when this one has done what it says.
            later = [line for _, lines in steps[index:] for line in lines]
            self._take(output, later, LOOKS_S if index < len(steps) else DEADLINE_S)
        assert not output.missing, output

    def _type(self, command: str) -> None:
        assert self._bash.stdin is not None
        if not command.startswith(NOT_RUN):
            if KILLED in self._text:
                command = re.sub("^(?=minibroker (serve|worker))", f"{PROGRAMS}/", command)
            if LIMITED in command:
                command = command.replace("; minibroker ", f"; {PROGRAMS}/minibroker ")
            self._bash.stdin.write(self._with_ports(command) + "\n")
            self._bash.stdin.flush()

    def _with_ports(self, line: str) -> str:
        for usual, ours in self._ports.items():
            line = line.replace(usual, ours)
        return line

    def _take(self, output: Output, later: list[str], most_s: float) -> None:
        """Take lines until nothing is missing but what comes later, or so much time has passed."""
        deadline = monotonic() + most_s
        while any(output.missing.count(line) > later.count(line) for line in output.missing):
            try:
                line = self._lines.get(timeout=max(0.0, deadline - monotonic()))
            except queue.Empty:
                return
            assert line is not None, f"the shell has ended: {output}"
            output.take(line)

    def _read(self) -> None:
        assert self._bash.stdout is not None
        with self._bash.stdout as output:
            for line in output:
                self._lines.put(line.rstrip())
        self._lines.put(None)


def _fits(pattern: str, line: str) -> bool:
    parts = map(re.escape, (" ".join(part.split()) for part in pattern.split("...")))
    return re.fullmatch(" ?.*? ?".join(parts), " ".join(line.split())) is not None


def run_page(name: str, directory: Path) -> None:
    """Run a page, named by its path in the project, in an empty directory."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in USUAL]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in probes]
    page = Page(ROOT / name, directory, ports)
    try:
        page.run()
    finally:
        page.close()
