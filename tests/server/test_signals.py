"""What each signal does to a server: a stop in good order, or an event and nothing else."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minibrokerd.process import exits
from minibrokerd.process.stopping import SIGNALS, Becomes
from support.broker import COMMAND, BrokerServer
from support.processes import DEADLINE_S, look_until

STOPS = [name for row in SIGNALS if row.becomes is Becomes.STOP for name in row.names]
IGNORED = [name for row in SIGNALS if row.becomes is Becomes.IGNORED for name in row.names]
DEADLY = [  # by default, and neither a fault of the program nor for a debugger
    *("SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM"),
    *("SIGSTKFLT", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGRTMIN"),
]


def says(server: BrokerServer, text: str) -> None:
    """Wait until the server has printed a line with this text."""
    look_until(lambda: text in server.output, server.process, text)


@pytest.mark.parametrize("name", STOPS)
def test_a_signal_that_stops(broker_server: BrokerServer, name: str) -> None:
    """In good order, whichever of them it is."""
    broker_server.process.send_signal(getattr(signal, name))
    assert broker_server.process.wait(DEADLINE_S) == exits.DONE, broker_server.output
    assert b"clean" in (broker_server.data_dir / "state").read_bytes()


def test_a_signal_that_means_nothing_leaves_a_line_and_nothing_else(
    broker_server: BrokerServer,
) -> None:
    """All that are deadly by default, and a hangup without a terminal, which is none of ours."""
    for name in (*IGNORED, "SIGHUP"):
        broker_server.process.send_signal(getattr(signal, name))
        says(broker_server, f" signal_ignored signal={name}")
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTOU):
        broker_server.process.send_signal(number)
    broker_server.process.send_signal(signal.SIGSTOP)
    broker_server.process.send_signal(signal.SIGCONT)
    says(broker_server, " continued")
    assert broker_server.stop() == 0


def test_every_deadly_signal_has_a_row() -> None:
    """Or is ignored by Python."""
    caught = {name for row in SIGNALS for name in row.names}
    assert set(DEADLY) - caught == {"SIGPIPE", "SIGXFSZ"}


def test_a_hangup_behind_the_request_to_stop_is_no_second_one(broker_server: BrokerServer) -> None:
    """systemd sends it so, with SendSIGHUP=yes."""
    broker_server.process.send_signal(signal.SIGTERM)
    broker_server.process.send_signal(signal.SIGHUP)
    assert broker_server.process.wait(DEADLINE_S) == exits.DONE, broker_server.output


def test_with_nohup_a_hangup_stays_ignored(tmp_path: Path) -> None:
    """It does not even leave a line."""
    server = BrokerServer(tmp_path / "data", command=(str(shutil.which("nohup")), *COMMAND))
    try:
        status = Path(f"/proc/{server.pid}/status").read_text("ascii")
        (ignored,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")]
        assert int(ignored, 16) & 1 << signal.SIGHUP - 1
        server.process.send_signal(signal.SIGHUP)
        assert server.stop() == 0
        assert "SIGHUP" not in server.output
    finally:
        server.close()


def test_started_in_the_background_of_a_script_it_hears_ctrl_c(tmp_path: Path) -> None:
    """The shell has SIGINT ignored for what it starts with `&`."""
    command = ("/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *COMMAND)
    server = BrokerServer(tmp_path / "data", command=command)
    try:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(DEADLINE_S) == exits.DONE, server.output
    finally:
        server.close()


@pytest.mark.parametrize("hangups", [1, 2])
def test_a_terminal_that_closes_stops_the_server(hangups: int, tmp_path: Path) -> None:
    """Both the kernel and the shell may say so: that is no second request."""
    master, slave = pty.openpty()
    # Its own session, with the terminal as the controlling one, as a shell would start it.
    start = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(2, termios.TIOCSCTTY, 0); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    ready, address = tmp_path / "ready", ("--data-dir", str(tmp_path / "data"))
    with ready.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", start, *COMMAND, "serve", "--port", "0", *address],
            stdin=slave,
            stdout=output,
            stderr=slave,
        )
    try:
        look_until(lambda: b"listening" in ready.read_bytes(), process, "it listens")
        for _ in range(hangups - 1):
            process.send_signal(signal.SIGHUP)
        os.close(slave)
        os.close(master)  # the kernel sends SIGHUP, and SIGCONT
        assert process.wait(DEADLINE_S) == exits.DONE
        assert b"clean" in (tmp_path / "data" / "state").read_bytes()
    finally:
        process.kill()
        process.wait()
