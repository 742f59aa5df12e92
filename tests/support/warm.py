"""The real `minibroker`, forked off a process that has imported it before, where that is the same.

Most of what a short command does is start an interpreter and import: 0.18 of its 0.20 s of processor time.
`warmer.py` has done that once for this process of the tests, and forks. What comes out has all of its own that a
process has (number, streams, environment, folder, signals, exit code) and is `python -m minibrokerd`, to its end.

What it shares with the next is what was imported, so what is about that is started as a user does: see `fits` and
`is_first`.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Final

from support.processes import TETHER, Process

WARMER: Final = Path(__file__).with_name("warmer.py")
ASKING: Final = WARMER.with_name("ask_warmer.py")
COMMAND: Final = (sys.executable, "-m", "minibrokerd")
GROUPS: Final = frozenset(
    {"dlq", "log", "message", "queue", "token"}
)  # one command each is no test of all
CLAIMS: Final = "TEST_RUN_CLAIMS"  # names a folder that all processes of a run share
# What an interpreter, its allocator and its libraries read as they start: long ago for one that is forked.
READ_AT_START: Final = ("PYTHON", "LANG", "LC_", "TZ", "LD_", "MALLOC_", "GLIBC_", "OPENSSL_")
NUMBER_BYTES: Final = 12  # as warmer.py tells them
SEEN_TO: Final = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")  # by the warmer
BY_SIZE: Final = "--memory-limit"  # what others import takes memory, too


def fits(words: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether a forked `minibroker WORDS`, or program of the tests, is one like any other."""

    def read(variables: Mapping[str, str]) -> dict[str, str]:
        found = {name: value for name, value in variables.items() if name.startswith(READ_AT_START)}
        return {name: value for name, value in found.items() if name not in SEEN_TO}

    return (
        sys.platform == "linux"
        and BY_SIZE not in words
        and read(environment) == read(os.environ)
        and all(word.isprintable() for word in words)
    )


def is_first(words: Sequence[str]) -> bool:
    """Return whether no process of this run of the tests has started this command before.

    So each of them is started once as a user does, in every run.
    """
    name = "-".join(words[: 1 + GROUPS.issuperset(words[:1])])
    try:
        os.close(os.open(Path(os.environ[CLAIMS]) / name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class Warm:
    """A forked `minibroker WORDS`, or a file of Python with such arguments: what tests use of subprocess.Popen.

    The descriptors of its streams stay open here; who gave them closes them.
    """

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        file: Path | None = None,
        folder: Path | None = None,
        start_new_session: bool = False,
    ) -> None:
        self.args = ["minibroker" if file is None else str(file), *words]
        self.returncode: int | None = None
        request = {
            "file": file and str(file.resolve()),
            "words": [*words],
            "environment": dict(environment),
            "folder": str(folder or Path.cwd()),
            "session": start_new_session,
            "held": False,  # it ends as it likes, or with the warmer
        }
        self._lock = threading.Lock()
        self._told, told = os.pipe()
        try:
            packet = [json.dumps(request).encode()]
            socket.send_fds(_warmer(), packet, [stdin, stdout, stderr, told])
        finally:
            os.close(told)
        self.pid = int(os.read(self._told, NUMBER_BYTES))

    def __del__(self) -> None:
        os.close(self._told)

    def poll(self) -> int | None:
        """Return the exit code, None if it still runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; subprocess.TimeoutExpired if it still runs after `timeout`."""
        if self.returncode is not None:
            return self.returncode
        ended = select.poll()
        ended.register(self._told, select.POLLIN)
        if not ended.poll(None if timeout is None else timeout * 1_000):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        with self._lock:  # of several threads that wait one reads it
            if self.returncode is None:
                self.returncode = int(os.read(self._told, NUMBER_BYTES))
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        # The warmer may have noticed the end, and be about to tell.
        with suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def with_output(words: Sequence[str], environment: Mapping[str, str]) -> tuple[Warm, IO[str]]:
    """Start `minibroker WORDS` without input; return it, and what it writes to either stream."""
    read, write = os.pipe()
    try:
        with open(os.devnull) as nothing:
            process = Warm(words, environment, stdin=nothing.fileno(), stdout=write, stderr=write)
    finally:
        os.close(write)
    return process, os.fdopen(read)


def start_logged(
    words: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    file: Path | None = None,
    folder: Path | None = None,
    stdout: int | None = None,
    start_new_session: bool = False,
    is_forked: bool = True,
) -> Process:
    """Start `minibroker WORDS`, or a file, with its output at the end of `log`; forked where that is the same.

    `stdout`: where the standard output goes instead. `is_forked` false: started, as a user does.
    """
    with log.open("ab") as output, open(os.devnull) as nothing:
        if is_forked and fits(words, environment):
            return Warm(
                words,
                environment,
                stdin=nothing.fileno(),
                stdout=output.fileno() if stdout is None else stdout,
                stderr=output.fileno(),
                file=file,
                folder=folder,
                start_new_session=start_new_session,
            )
        command = COMMAND if file is None else (sys.executable, str(file))
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", TETHER, *command, *words],
            stdin=nothing,
            stdout=output if stdout is None else stdout,
            stderr=output,
            env=environment,
            cwd=folder,
            start_new_session=start_new_session,
        )


def in_session(words: Sequence[str], environment: Mapping[str, str], terminal: int) -> Process:
    """Start `minibroker WORDS` in a session of its own, on a terminal; forked where that is the same."""
    if fits(words, environment):
        return Warm(
            words,
            environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
    return subprocess.Popen(
        [*COMMAND, *words],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        start_new_session=True,
    )


def run(
    words: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    stdin: str = "",
    timeout: float = 30,
) -> subprocess.CompletedProcess[str]:
    """Run `minibroker WORDS` to its end, forked where that is the same; else, and once in each run, started."""
    variables = os.environ if environment is None else environment
    if fits(words, variables) and not is_first(words):
        return forked(words, variables, stdin, timeout)
    return subprocess.run(
        [*COMMAND, *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=dict(variables),
    )


def forked(
    words: Sequence[str], environment: Mapping[str, str], stdin: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a forked `minibroker WORDS` to its end, as subprocess.run does with texts."""
    (read_in, write_in), (read_out, write_out), (read_err, write_err) = (os.pipe() for _ in "123")
    try:
        process = Warm(words, environment, stdin=read_in, stdout=write_out, stderr=write_err)
    finally:
        for theirs in (read_in, write_out, write_err):
            os.close(theirs)
    with (
        ThreadPoolExecutor(3) as threads,
        os.fdopen(read_out) as output,
        os.fdopen(read_err) as errors,
    ):
        threads.submit(_write, write_in, stdin)
        printed, complained = threads.submit(output.read), threads.submit(errors.read)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess([*words], code, printed.result(), complained.result())


def _write(fd: int, text: str) -> None:
    # What is not read is nobody's fault; subprocess.run takes no offence, either.
    with suppress(BrokenPipeError), os.fdopen(fd, "w") as stream:
        stream.write(text)


def for_shells() -> tuple[str, int]:
    """Return what a shell may call instead of `minibroker`, and the descriptor that it has to be given."""
    fd = _warmer().fileno()
    return f"{sys.executable} -I -S {ASKING} {fd}", fd


@cache
def _warmer() -> socket.socket:
    """Return where to ask; the warmer, and all that came out of it, ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        warmer = subprocess.Popen(
            [sys.executable, str(WARMER), str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    atexit.register(warmer.wait)
    atexit.register(ours.close)  # before that
    return ours
