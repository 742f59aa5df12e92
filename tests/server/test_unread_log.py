"""A server whose log nobody reads works on, and stops when it is asked to."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hand import frame, part

from support.broker import COMMAND, START_DEADLINE_S
from support.processes import DEADLINE_S, look_until

EVENTS = 5_000
DRAIN_S = 5


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def served(
    data_dir: Path, stderr: int, stdout: int = subprocess.DEVNULL
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server that writes to these descriptors, and its port."""
    port = free_port()
    flags = ("--data-dir", str(data_dir), "--drain-timeout", str(DRAIN_S), "--log-level", "debug")
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", str(port), *flags], stdout=stdout, stderr=stderr
    )
    try:
        look_until(lambda: answers(port), process, "it listens", START_DEADLINE_S)
        yield process, port
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    """Whether a client is welcome."""
    try:
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as peer:
            peer.settimeout(DEADLINE_S)
            peer.sendall(frame(part("hello", protocol=1, client="probe")))
            return b"welcome" in peer.recv(4_096)
    except ConnectionError:
        return False


def chatter(port: int, count: int) -> None:
    """Bring so many events about: at debug level each login is two."""
    for _ in range(count):
        assert answers(port)


def test_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    """Events beyond what pipe and server keep are lost and counted; nothing waits, not even the stop."""
    reader, writer = os.pipe()
    with served(tmp_path / "data", writer, writer) as (process, port):
        os.close(writer)
        chatter(port, EVENTS // 2)
        assert answers(port)
        process.terminate()
        assert process.wait(DRAIN_S + 5) == 0
    with os.fdopen(reader, "rb") as file:
        assert b"started" in file.read()


def test_a_reader_that_comes_back_hears_what_it_missed(tmp_path: Path) -> None:
    """After the lines that were kept."""
    reader, writer = os.pipe()
    with served(tmp_path / "data", writer) as (process, port):
        os.close(writer)
        chatter(
            port, EVENTS
        )  # told at once; of new queues the log hears within a second, perhaps while it is read
        text = b""
        while not re.search(rb"lines_dropped lines_dropped=\d+\n", text):
            text += os.read(reader, 65_536)
        assert answers(port)
        process.terminate()
        assert process.wait(DRAIN_S + 5) == 0
    os.close(reader)


def test_a_terminal_that_was_stopped(tmp_path: Path) -> None:
    """Ctrl-S: whatever is written to it waits."""
    master, slave = pty.openpty()
    with served(tmp_path / "data", slave, slave) as (process, port):
        termios.tcflow(slave, termios.TCOOFF)
        chatter(port, 300)
        process.terminate()
        assert process.wait(DRAIN_S + 5) == 0
    os.close(slave)
    os.close(master)


def test_a_reader_that_went_away(tmp_path: Path) -> None:
    """`minibroker serve 2>&1 | head -1`."""
    reader, writer = os.pipe()
    with served(tmp_path / "data", writer, writer) as (process, port):
        os.close(writer)
        os.close(reader)
        chatter(port, 20)
        process.terminate()
        assert process.wait(DRAIN_S + 5) == 0
