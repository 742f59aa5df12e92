"""The HTTP port beside the broker: it is on by itself, says in which phase the broker is, and never ends it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from http_broker import HttpBroker, StartHttp

import minibroker.sync
from minibrokerd.http.options import MOST_VISITORS, HttpOptions
from minibrokerd.http.port import HttpPort
from support.broker import BrokerServer, StartBroker, with_files
from support.processes import look_until

OPEN = {"MINIBROKER_NO_HTTP": "0"}
LOW_LIMIT = 128


def said(server: BrokerServer, word: str) -> list[str]:
    """Return the lines of its log with this word."""
    return [line for line in server.lines if word in line]


def test_it_is_alive_and_ready(http_broker: HttpBroker) -> None:
    """Both without any token."""
    assert http_broker.client.get("/healthz").text == "alive\n"
    ready = http_broker.client.get("/readyz")
    assert (ready.status_code, ready.text) == (200, "ready\n")


def test_a_taken_port_is_a_line_in_the_log_and_the_broker_goes_on(
    start_broker: StartBroker,
) -> None:
    """The line says what to do; a client is served."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = start_broker("--http", address, env=OPEN)
        (line,) = said(server, "http_unavailable")
        assert " warning " in line
        assert f"cannot listen on {address} (EADDRINUSE)" in line
        assert "--http HOST:PORT" in line
        ping = [sys.executable, "-m", "minibrokerd", "ping", "--url", server.url]
        assert subprocess.run(ping, check=False, capture_output=True).returncode == 0
        assert server.stop() == 0


def test_a_port_that_was_bound_by_two_is_a_line_in_the_log_too(start_broker: StartBroker) -> None:
    """Linux lets both bind; who listens first has it, and the other is told when it listens."""
    first = start_broker("--http", "127.0.0.1:0", env=OPEN)
    look_until(lambda: bool(said(first, "http_started")), first.process, "its page")
    address = said(first, "http_started")[0].split("address=http://")[1].split()[0]
    second = start_broker("--http", address, env=OPEN)
    look_until(lambda: bool(said(second, "http_unavailable")), second.process, "it is told")
    assert (first.stop(), second.stop()) == (0, 0)


async def test_a_port_that_another_one_took_meanwhile_is_at_no_address() -> None:
    """The banner is printed after that where the start took a while, or another broker led before."""
    with socket.socket() as ours, socket.socket() as another:
        for sock in (ours, another):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind(("127.0.0.1", 0))
        another.bind(ours.getsockname())
        another.listen()
        subject: Any = SimpleNamespace(loop=asyncio.get_running_loop(), survey=None)
        port: Any = HttpPort(HttpOptions("127.0.0.1", 0), [ours], subject, 1)
        port._make = SimpleNamespace  # what would answer
        assert port.address
        port.start()
        assert port._task is not None
        await port._task
        assert port.address == ""


def test_no_port_without_one(start_broker: StartBroker) -> None:
    """--no-http: no line of it, and none of what serves it is loaded."""
    server = start_broker("--no-http", env=OPEN)
    assert not said(server, "http")
    maps = Path(f"/proc/{server.pid}/maps").read_text()
    assert "httptools" not in maps
    assert server.stop() == 0


def test_nothing_that_serves_http_is_imported_with_the_broker() -> None:
    """A start takes as long, and as much memory, as one without HTTP."""
    code = "import sys, minibrokerd.serving.server; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert not {"uvicorn", "starlette", "h11", "anyio", "jinja2"} & set(loaded.stdout.split())


def test_signals_stay_the_brokers(http_broker: HttpBroker) -> None:
    """uvicorn would end the process by the signal itself, before the log is closed."""
    assert http_broker.server.stop() == 0
    assert "stopped code=0" in http_broker.server.output
    assert not said(http_broker.server, "library")


def test_whoever_is_being_answered_does_not_hold_up_a_stop(http_broker: HttpBroker) -> None:
    """A connection that is kept alive, and one whose request is not complete."""
    host, _, port = http_broker.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        assert http_broker.client.get("/healthz").status_code == 200
        assert http_broker.server.stop() == 0
        assert half.recv(1) == b""


def test_other_machines_need_a_token(tmp_path: Path) -> None:
    """Nothing is started that would show every message to a network."""
    words = ["serve", "--data-dir", str(tmp_path / "data"), "--port", "0", "--http", "0.0.0.0:0"]
    command = [sys.executable, "-m", "minibrokerd", *words]
    refused = subprocess.run(command, check=False, capture_output=True, text=True, env=OPEN)
    assert refused.returncode == 2
    assert "--http-token-file" in refused.stderr
    short = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env={**OPEN, "MINIBROKER_HTTP_TOKEN": "guess"},
    )
    assert short.returncode == 2
    assert "less than 16 characters" in short.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("address", ["7273", "localhost:", "localhost:seven", ":7273", "a:65536"])
def test_an_address_has_a_host_and_a_port(tmp_path: Path, address: str) -> None:
    """A mistake in it is told before anything is started."""
    words = ["serve", "--data-dir", str(tmp_path / "data"), "--port", "0", "--http", address]
    command = [sys.executable, "-m", "minibrokerd", *words]
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "is no address like" in refused.stderr


def test_a_token_can_stand_in_a_file(start_http: StartHttp, tmp_path: Path) -> None:
    """And `config` does not show it."""
    path = tmp_path / "token"
    path.write_text("a token that is long enough\n")
    broker = start_http("--http-token-file", str(path))
    broker.server.prints("can_change=true")
    assert "long enough" not in broker.server.output


def test_what_is_no_path_is_said_so(http_broker: HttpBroker) -> None:
    """In JSON, with a code; another method is no path either."""
    for answer in (http_broker.client.get("/nothing"), http_broker.client.post("/healthz")):
        assert answer.json()["code"] == "no_such_path"


def test_hostile_requests_end_their_connection_and_nothing_else(http_broker: HttpBroker) -> None:
    """Heads without end, bytes of no protocol, a body that is announced and never comes."""
    host, _, port = http_broker.url.removeprefix("http://").rpartition(":")
    for data in (
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
        b"\x00\x01\x02\x03" * 1_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), 5) as sock:
            try:
                sock.sendall(data)
                assert sock.recv(100).startswith(b"HTTP/1.1 4")
            except ConnectionError:
                continue  # it was cut off while it sent
    assert http_broker.client.get("/readyz").status_code == 200
    assert not said(http_broker.server, "Traceback")


def test_connections_that_ask_for_nothing_give_way(http_broker: HttpBroker) -> None:
    """Those that say nothing, or begin a body that never comes, are bounded; whoever asks is answered."""
    host, _, port = http_broker.url.removeprefix("http://").rpartition(":")
    body = b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nt"
    process = http_broker.server.process
    descriptors = Path(f"/proc/{process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    with ExitStack() as stack:
        for number in range(450):
            sock = stack.enter_context(socket.create_connection((host, int(port))))
            if number % 2:
                sock.sendall(body)
        with httpx.Client(base_url=http_broker.url, trust_env=False) as another:
            assert another.get("/healthz").status_code == 200
        look_until(
            lambda: len(list(descriptors.iterdir())) <= before + MOST_VISITORS + 5,
            process,
            "they have gone",
        )
    http_broker.wait()
    assert not said(http_broker.server, "Traceback")


def test_strangers_on_both_ports_leave_the_log_its_descriptors(tmp_path: Path) -> None:
    """More of them than files may be open: new segments are made, and a visitor is answered."""
    flags = ("--http", "127.0.0.1:0", "--segment-bytes", "65536")
    server = BrokerServer(tmp_path / "data", *flags, command=with_files(LOW_LIMIT), env=OPEN)
    try:
        look_until(lambda: bool(said(server, "http_started")), server.process, "its page")
        host, _, port = said(server, "http_started")[0].split("//")[1].split()[0].rpartition(":")
        with minibroker.sync.connect(server.url) as broker, ExitStack() as crowd:
            for _ in range(LOW_LIMIT):
                for address in ((host, int(port)), (server.host, server.port)):
                    crowd.enter_context(socket.create_connection(address))
            assert httpx.get(f"http://{host}:{port}/readyz", trust_env=False).text == "ready\n"
            for _ in range(10):
                broker.queue("q").publish(b"x" * 20_000)
        assert server.stop() == 0
        assert not said(server, "disk_full")
    finally:
        server.close()


def test_what_strangers_cause_does_not_fill_the_log(http_broker: HttpBroker) -> None:
    """Of 100 requests that are none, the 1st, 2nd, 4th, ... is told."""
    host, _, port = http_broker.url.removeprefix("http://").rpartition(":")
    for _ in range(100):
        with socket.create_connection((host, int(port)), 5) as sock:
            sock.sendall(b"no request\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 400")
    assert http_broker.server.stop() == 0
    assert len(said(http_broker.server, "Invalid HTTP request")) == 7
