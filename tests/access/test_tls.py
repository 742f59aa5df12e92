"""TLS between real clients and a real server: who is taken, who is refused, and how certificates change."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import minibroker
import minibroker.sync
from minibroker import ConnectionLost, LoginRefused
from minibroker.shell.attached import Attached
from minibrokerd.process import exits
from support.broker import COMMAND, BrokerServer, StartBroker
from support.certificates import Authority
from support.processes import DEADLINE_S, look_until
from support.renewals import LEASE_S, renewed

Files = tuple[Path, Path]
BODY = b"x" * 300_000  # more than one record, and more than one read
SMALL = ("--segment-bytes", "1MiB")


def flags(files: Files, *more: str) -> Sequence[str]:
    """Return the flags of a server with these files."""
    return (*SMALL, "--tls-cert", str(files[0]), "--tls-key", str(files[1]), *more)


def address(server: BrokerServer, **options: object) -> str:
    """Return the url of a server with TLS."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"minibrokers://{server.host}:{server.port}" + (f"?{query}" if query else "")


def said(server: BrokerServer, text: str) -> str:
    """Wait for a line of the server's log, and return it."""
    look_until(lambda: text in server.output, server.process, text)
    return [line for line in server.lines if text in line][-1]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_client_of_asyncio(
    loop: str, start_broker: StartBroker, authority: Authority, server_files: Files
) -> None:
    """Its two connections: large and small messages, a lone publish, a lease that is renewed by the second one."""
    server = start_broker(*flags(server_files, "--loop", loop))
    async with minibroker.connect(address(server), ca=str(authority.cert)) as broker:
        queue = broker.queue("q", lease_ms=1_000 * LEASE_S)
        for size in (1, len(BODY)):
            for _ in range(
                4
            ):  # alone: its confirm would go to the bare socket, if there were no TLS
                await queue.publish(BODY[:size])
        async with queue.consume(prefetch=2) as messages:
            seen = 0
            async for message in messages:
                async with message.process():
                    assert set(message.body) == set(b"x")
                    if not seen:
                        attached = broker._driver.attached
                        assert isinstance(attached, Attached)
                        assert await asyncio.to_thread(attached.connected.wait, DEADLINE_S)
                        await renewed(queue, message.id)
                seen += 1
                if seen == 8:
                    break
        assert (await broker.stats())["queues"]["q"]["acked"] == 8
    assert server.stop() == 0


def test_a_blocking_client(
    start_broker: StartBroker, authority: Authority, server_files: Files
) -> None:
    """As above, by a url that has all of it."""
    server = start_broker(*flags(server_files))
    with minibroker.sync.connect(address(server, ca=authority.cert)) as broker:
        queue = broker.queue("q")
        for size in (1, len(BODY)):
            for _ in range(4):
                queue.publish(BODY[:size])
        with queue.consume(prefetch=2) as messages:
            for seen, message in enumerate(messages, 1):
                with message.process():
                    assert set(message.body) == set(b"x")
                if seen == 8:
                    break
        assert broker.stats()["queues"]["q"]["acked"] == 8
    assert server.stop() == 0


@pytest.mark.parametrize("blocking", [False, True])
def test_a_server_that_is_not_trusted_is_refused_at_once(
    blocking: bool, start_broker: StartBroker, authority: Authority, tmp_path: Path
) -> None:
    """By the system's CAs, by another CA, by the name in its certificate; the last can be named."""
    server = start_broker(*flags(authority.sign("elsewhere", "DNS:broker.example")))
    other = Authority(tmp_path / "other", "other")
    url = address(server)
    refused(url, "not trusted", blocking)
    refused(f"{url}?ca={other.cert}", "not trusted", blocking)
    refused(f"{url}?ca={authority.cert}", "IP address mismatch", blocking)
    ping(f"{url}?ca={authority.cert}&server_name=broker.example", blocking)


def test_a_command_says_what_to_give_for_a_server_that_is_not_trusted(
    start_broker: StartBroker, server_files: Files
) -> None:
    """And not to look for another port."""
    server = start_broker(*flags(server_files))
    env = {"MINIBROKER_URL": address(server)}
    done = subprocess.run(
        [*COMMAND, "queues"], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (exits.UNREACHABLE, "")
    assert "is not trusted" in done.stderr
    assert "MINIBROKER_CA" in done.stderr
    assert "port" not in done.stderr


def refused(url: str, words: str, blocking: bool, **options: Any) -> None:
    """Check that the first attempt is the last one: a timeout would be `ConnectionLost`."""
    with pytest.raises(LoginRefused, match=words):
        ping(url, blocking, **options)


def ping(url: str, blocking: bool, **options: Any) -> None:
    """Connect, ask for a sign of life, and leave."""

    async def work() -> None:
        async with minibroker.connect(url, **options) as broker:
            await broker.ping()

    if blocking:
        with minibroker.sync.connect(url, **options) as broker:
            broker.ping()
    else:
        asyncio.run(work())


@pytest.mark.parametrize("blocking", [False, True])
def test_clients_with_a_certificate(
    blocking: bool, start_broker: StartBroker, authority: Authority, server_files: Files
) -> None:
    """The server asks for one of its CA; the refusal is told, by both sides."""
    server = start_broker(*flags(server_files, "--tls-client-ca", str(authority.cert)))
    cert, key = authority.sign("worker")
    url = address(server, ca=authority.cert)
    ping(url, blocking, client_cert=str(cert), client_key=str(key))
    with pytest.raises(ConnectionLost, match=r"(?i)certificate.required"):
        connect_for(url, 0.5, blocking)
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in said(server, "connection_refused")


def connect_for(url: str, seconds: float, blocking: bool) -> None:
    """Try to connect for a while."""

    async def work() -> None:
        async with minibroker.connect(url, connect_timeout=seconds):
            pass

    if blocking:
        minibroker.sync.connect(url, connect_timeout=seconds).close()
    else:
        asyncio.run(work())


async def test_new_certificates_leave_open_connections_alone(
    start_broker: StartBroker, authority: Authority, tmp_path: Path
) -> None:
    """When the files change and at SIGHUP; a file that cannot be used changes nothing."""
    old, new = Authority(tmp_path / "old", "old"), Authority(tmp_path / "new", "new")
    live = (tmp_path / "live.pem", tmp_path / "live.key")

    def install(files: Files) -> None:
        for path, source in zip(live, files, strict=True):
            fresh = path.with_suffix(".fresh")
            fresh.write_bytes(source.read_bytes())
            fresh.replace(path)

    install(old.sign("server", "IP:127.0.0.1"))
    server = start_broker(*flags(live))
    async with minibroker.connect(address(server), ca=str(old.cert)) as broker:
        await broker.ping()
        before = broker._driver.link
        install(new.sign("server", "IP:127.0.0.1"))
        await asyncio.to_thread(said, server, "certificates_loaded")
        async with minibroker.connect(address(server), ca=str(new.cert)) as other:
            await other.ping()
        live[0].write_text("no certificate")
        await asyncio.to_thread(said, server, "certificates_refused")
        async with minibroker.connect(address(server), ca=str(new.cert)) as other:
            await other.ping()
        install(old.sign("server", "IP:127.0.0.1"))
        await asyncio.to_thread(
            look_until,
            lambda: server.output.count("certificates_loaded") == 2,
            server.process,
            "the old ones",
        )
        os.kill(server.pid, signal.SIGHUP)
        await asyncio.to_thread(
            look_until,
            lambda: (
                server.output.count("certificates_loaded") == 3
                or "stopping signal=SIGHUP" in server.output
            ),
            server.process,
            "SIGHUP",
        )
        if "stopping" not in server.output:  # this test run has a terminal: there it means a stop
            await broker.ping()
            assert broker._driver.link is before
    assert "loop_error" not in server.output


@pytest.mark.parametrize("blocking", [False, True])
def test_each_is_told_at_the_port_of_the_other(
    blocking: bool, start_broker: StartBroker, authority: Authority, server_files: Files
) -> None:
    """A client without TLS at a port with, and with TLS at a port without."""
    sealed, plain = start_broker(*flags(server_files)), start_broker(*SMALL)
    refused(sealed.url, "connect with minibrokers://", blocking)
    assert "takes encrypted connections only" in said(sealed, "connection_refused")
    with pytest.raises(ConnectionLost, match="its address is minibroker://"):
        connect_for(address(plain, ca=authority.cert), 0.5, blocking)
    assert " speaks=TLS " in said(plain, "connection_refused")


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"PING\r\n", b"-ERR this is minibroker"),
    ],
)
def test_strangers_at_a_port_with_tls(
    sent: bytes, answer: bytes, start_broker: StartBroker, server_files: Files
) -> None:
    """They hear of it in the clear, as at a port without."""
    server = start_broker(*flags(server_files))
    with socket.create_connection((server.host, server.port), DEADLINE_S) as peer:
        peer.sendall(sent)
        assert peer.recv(1_000).startswith(answer)
    assert "this is minibroker" in said(server, "connection_refused")


def test_old_versions_of_tls_are_refused(
    start_broker: StartBroker, authority: Authority, server_files: Files
) -> None:
    """1.2 is the least."""
    server = start_broker(*flags(server_files))
    context = ssl.create_default_context(cafile=str(authority.cert))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection((server.host, server.port), DEADLINE_S) as peer,
        context.wrap_socket(peer, server_hostname="127.0.0.1") as sealed,
    ):
        assert sealed.version() == "TLSv1.2"
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection((server.host, server.port), DEADLINE_S) as peer,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(peer, server_hostname="127.0.0.1")
    assert " speaks=TLS " in said(server, "connection_refused")


def test_files_that_cannot_be_used_stop_the_start(
    start_broker: StartBroker, authority: Authority, server_files: Files, tmp_path: Path
) -> None:
    """The key of another certificate, no certificate, a CA that is none: named, before the log is touched."""
    other = authority.sign("other")
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    cert, key = map(str, server_files)
    for given, words in (
        (
            ("--tls-cert", cert, "--tls-key", str(other[1])),
            "the key is not that of the certificate",
        ),
        (("--tls-cert", str(empty)), f"--tls-cert {empty}"),
        (("--tls-cert", cert, "--tls-key", key, "--tls-client-ca", str(empty)), "--tls-client-ca"),
        (("--tls-key", key), "--tls-cert"),
    ):
        with pytest.raises(AssertionError, match=f"ended with {exits.USAGE}") as caught:
            start_broker(*given, data_dir=tmp_path / "data")
        assert words in str(caught.value)
    assert not (tmp_path / "data").exists()
