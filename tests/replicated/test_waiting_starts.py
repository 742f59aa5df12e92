"""A start that waits for servers of NATS: it says why, tries at its leisure, and a signal ends it at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic

import pytest

from support.broker import BrokerServer
from support.processes import look_until

MOST_TRIES = 8  # a second


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


@pytest.fixture
def launched(broker_server: BrokerServer) -> Iterator[BrokerServer]:
    """A broker that is stopped, to be launched with other flags."""
    broker_server.stop()
    yield broker_server
    broker_server.close()


@pytest.mark.parametrize("flags", [(), ("--standby",)], ids=["leads", "stands by"])
def test_a_start_without_servers_hears_a_signal_at_once(
    launched: BrokerServer, silent_port: int, flags: tuple[str, ...]
) -> None:
    """It would give up with 69, long after; and it said once what is missing."""
    launched.flags = ("--log", f"nats://127.0.0.1:{silent_port}/x", "--no-http", *flags)
    launched.lines.clear()
    launched.launch()
    launched.prints("log_stalled")
    assert launched.stop() == 0
    assert launched.output.count("log_stalled") == 1
    assert "before=listening" in launched.output


@pytest.mark.parametrize(
    ("servers", "advertised", "warns"),
    [
        ("192.0.2.1", (), True),  # an address that nobody has
        ("127.0.0.1:PORT,192.0.2.1", (), True),
        ("192.0.2.1", ("--advertise", "localhost:7272"), True),
        ("192.0.2.1", ("--advertise", "192.0.2.2:7272"), False),
        ("127.0.0.1:PORT,[::1]:PORT,localhost:PORT", (), False),
    ],
)
def test_who_would_send_clients_to_its_own_machine_alone_is_warned(
    launched: BrokerServer,
    silent_port: int,
    servers: str,
    advertised: tuple[str, ...],
    warns: bool,
) -> None:
    """A broker elsewhere that stands by sends clients where this one says; not so where all is on one machine."""
    log = f"nats://{servers.replace('PORT', str(silent_port))}/x"
    launched.flags = ("--log", log, "--no-http", *advertised)
    launched.lines.clear()
    launched.launch()
    launched.prints("log_stalled")
    told = [line for line in launched.output.splitlines() if "advertises_loopback" in line]
    assert len(told) == warns
    assert all("--advertise HOST:PORT" in line for line in told)
    assert launched.stop() == 0


def test_tries_to_connect_are_paced(launched: BrokerServer) -> None:
    """Counted against the time that went by, of which there may be any amount."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        tries = 0

        def is_told() -> bool:
            nonlocal tries
            with suppress(BlockingIOError):
                while True:
                    sock.accept()[0].close()
                    tries += 1
            return "log_stalled" in launched.output

        launched.flags = ("--log", f"nats://127.0.0.1:{sock.getsockname()[1]}/x", "--no-http")
        launched.lines.clear()
        began_s = monotonic()
        look_until(is_told, launched.launch(), "a word of why it waits")
        assert 2 <= tries <= MOST_TRIES * (monotonic() - began_s)
        assert launched.stop() == 0
