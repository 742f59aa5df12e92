"""`minibroker serve` as an operator meets it: flags, environment, signals. Refusals: test_serve_refusals.py."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minibrokerd.net.addresses import is_loopback
from support.broker import BrokerServer


def serve(*flags: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `serve` to an end that is expected to come soon."""
    command = [sys.executable, "-m", "minibrokerd", "serve", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, env=env, check=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "example.org", ""])
def test_an_address_that_others_reach_needs_the_word_insecure(host: str, tmp_path: Path) -> None:
    """There are no passwords yet, so the default must keep strangers out."""
    ended = serve("--host", host, "--data-dir", str(tmp_path / "data"))
    assert ended.returncode == 2
    assert "--insecure" in ended.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_addresses_of_this_machine_are_safe(host: str) -> None:
    """All of 127.0.0.0/8 is this machine."""
    assert is_loopback(host)


def test_with_insecure_it_listens_everywhere(tmp_path: Path) -> None:
    """What a container needs."""
    server = BrokerServer(tmp_path / "data", "--host", "0.0.0.0", "--insecure")
    try:
        assert server.host == "0.0.0.0"
    finally:
        server.close()


def test_flags_can_come_from_the_environment(tmp_path: Path) -> None:
    """A container sets variables instead of a command line."""
    server = BrokerServer(
        tmp_path / "data",
        env={"MINIBROKER_HOST": "127.0.0.2", "MINIBROKER_LOOP": "asyncio"},
    )
    try:
        assert server.host == "127.0.0.2"
    finally:
        server.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_exit_code_0(broker_server: BrokerServer, number: int) -> None:
    """Stopped on request is a success."""
    broker_server.process.send_signal(number)
    assert broker_server.process.wait(20) == 0


@pytest.mark.parametrize(
    "flags", [["--segment-bytes", "65537"], ["--loop", "trio"], ["--nonsense"]]
)
def test_a_wrong_command_line_ends_with_2(flags: list[str], tmp_path: Path) -> None:
    """Before anything is touched."""
    ended = serve(*flags, "--data-dir", str(tmp_path / "data"))
    assert ended.returncode == 2
    assert not (tmp_path / "data").exists()


def test_after_a_kill_it_starts_on_the_same_directory_and_port(broker_server: BrokerServer) -> None:
    """SIGKILL leaves no lock behind that would need an operator."""
    port = broker_server.port
    broker_server.kill()
    broker_server.restart()
    assert broker_server.port == port
    assert broker_server.stop() == 0
