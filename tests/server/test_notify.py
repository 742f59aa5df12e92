"""What a service manager hears: over a real socket, from the module and from a real broker."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from minibrokerd.process.notify import Notifier
from support.broker import StartBroker

PATIENCE_S = 20.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a manager, at a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE_S)
        yield sock


def hear(manager: socket.socket) -> dict[str, str]:
    """Return the next datagram."""
    lines = manager.recv(4_096).decode().split("\n")
    return dict(line.split("=", 1) for line in lines)


def test_without_a_manager_nothing_is_sent_and_nothing_fails() -> None:
    """The usual case."""
    notifier = Notifier({})
    notifier.ready("listening")
    notifier.ping()
    assert notifier.ping_s is None


def test_a_manager_that_went_away_is_no_error(tmp_path: Path) -> None:
    """The broker goes on, and tells the next one."""
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready("here")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "gone"))
        notifier.stopping("now")
        assert hear(manager) == {"STOPPING": "1", "STATUS": "now"}


def test_each_word_is_a_datagram_of_lines(manager: socket.socket) -> None:
    """sd_notify(3)."""
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    notifier.status("reading\nthe log", extend_s=30)
    assert hear(manager) == {"STATUS": "reading the log", "EXTEND_TIMEOUT_USEC": "30000000"}
    notifier.ready("here")
    assert hear(manager) == {"READY": "1", "STATUS": "here"}
    notifier.ping()
    assert hear(manager) == {"WATCHDOG": "1"}
    notifier.stopping("bye")
    assert hear(manager) == {"STOPPING": "1", "STATUS": "bye"}


def test_an_abstract_name_begins_with_an_at_sign() -> None:
    """As containers hand it over."""
    name = f"minibroker-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        manager.settimeout(PATIENCE_S)
        Notifier({"NOTIFY_SOCKET": "@" + name}).ready("here")
        assert hear(manager)["READY"] == "1"


@pytest.mark.parametrize(
    ("variables", "ping_s"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "its own"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_pings_come_twice_in_the_time_that_the_manager_waits(
    variables: dict[str, str], ping_s: float | None
) -> None:
    """And only from the process that is meant."""
    if variables.get("WATCHDOG_PID") == "its own":
        variables = {**variables, "WATCHDOG_PID": str(os.getpid())}
    assert Notifier({"NOTIFY_SOCKET": "/run/there", **variables}).ping_s == ping_s


def test_a_broker_tells_its_manager_of_its_life(
    manager: socket.socket, start_broker: StartBroker
) -> None:
    """Reading, ready when it listens, alive, stopping; nothing more is needed for Type=notify."""
    env = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "100000", "WATCHDOG_PID": ""}
    server = start_broker(env=env)
    assert hear(manager)["STATUS"] == "reading the log"
    ready = hear(manager)
    assert (ready["READY"], ready["STATUS"]) == ("1", f"listening on 127.0.0.1:{server.port}")
    assert [hear(manager) for _ in range(3)] == [{"WATCHDOG": "1"}] * 3
    assert server.stop() == 0
    last = hear(manager)
    while last == {"WATCHDOG": "1"}:
        last = hear(manager)
    assert last["STOPPING"] == "1"
