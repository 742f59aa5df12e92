"""The HTTP port with TLS: the certificate of the port for clients, renewed with it; our commands ask it, too."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from minibrokerd.http.options import MOST_VISITORS
from minibrokerd.http.port import BACKLOG
from minibrokerd.process import exits
from support.broker import BrokerServer, StartBroker
from support.certificates import OPENSSL, Authority
from support.processes import look_until

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is missing")
ENV = {"MINIBROKER_NO_HTTP": "0", "MINIBROKER_HTTP_TOKEN": "a token for the tests of HTTP"}


def answers(url: str, ca: Path) -> bool:
    """Whether a client that trusts this CA alone is answered."""
    try:
        context = ssl.create_default_context(cafile=str(ca))
        return httpx.get(f"{url}/readyz", verify=context, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def client_hello() -> bytes:
    """Return the first flight of a client."""
    out = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(
            ssl.MemoryBIO(), out, server_hostname="localhost"
        ).do_handshake()
    return out.read()


def page_of(server: BrokerServer) -> str:
    """Return the address of the page, when the log has said it."""
    text = "http_started address="
    look_until(lambda: text in server.output, server.process, "its page")
    found = re.search(rf"{text}(\S+)", server.output)
    assert found
    return found[1]


def test_https_with_the_certificate_of_the_clients_port(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    """Nobody is answered in the clear; a renewed certificate holds for who comes then; cookies stay in TLS."""
    authority, other = Authority(tmp_path / "one"), Authority(tmp_path / "two")
    cert, key = authority.sign("server", "IP:127.0.0.1")
    flags = ("--http", "127.0.0.1:0", "--http-tls", "--tls-cert", str(cert), "--tls-key", str(key))
    server = start_broker(*flags, "--tls-client-ca", str(authority.cert), env=ENV)
    url = page_of(server)
    assert url.startswith("https://")
    assert f"  http       {url}" in server.lines
    look_until(lambda: answers(url, authority.cert), server.process, "it answers")
    assert not answers(url, other.cert)
    assert not answers(url.replace("https", "http"), authority.cert)
    context = ssl.create_default_context(cafile=str(authority.cert))
    with httpx.Client(base_url=url, verify=context, trust_env=False) as client:
        signed_in = client.post("/sign-in", data={"token": ENV["MINIBROKER_HTTP_TOKEN"]})
        assert "Secure" in signed_in.headers["set-cookie"]
        # Kept alive while the certificate is renewed.
        for new, old in zip(other.sign("renewed", "IP:127.0.0.1"), (cert, key), strict=True):
            shutil.copyfile(new, old)
        look_until(
            lambda: "certificates_loaded" in server.output, server.process, "it has read them"
        )
        assert client.get("/api/v1/queues").status_code == 200
    assert answers(url, other.cert)
    assert not answers(url, authority.cert)
    assert server.stop() == 0


def test_our_commands_ask_over_tls(start_broker: StartBroker, tmp_path: Path) -> None:
    """By the CA that MINIBROKER_CA names; with another, nobody answers there."""
    authority = Authority(tmp_path / "one")
    cert, key = authority.sign("server", "IP:127.0.0.1")
    flags = ("--http", "127.0.0.1:0", "--http-tls", "--tls-cert", str(cert), "--tls-key", str(key))
    server = start_broker(*flags, env=ENV)
    url = page_of(server)
    look_until(lambda: answers(url, authority.cert), server.process, "it answers")
    command = [sys.executable, "-m", "minibrokerd", "connections", "--http", url]
    for ca, code in ((authority.cert, exits.DONE), (None, exits.UNREACHABLE)):
        env = {"MINIBROKER_CA": str(ca)} if ca else {}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert ("not trusted" in done.stderr) == ("MINIBROKER_CA" in done.stderr) == (ca is None)


def test_tls_without_a_certificate_is_refused(tmp_path: Path) -> None:
    """Before anything is started."""
    command = [sys.executable, "-m", "minibrokerd", "serve", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(
        [*command, "--http-tls"], capture_output=True, text=True, env={}, check=False
    )
    assert (done.returncode, "--tls-cert" in done.stderr) == (exits.USAGE, True)
    assert not (tmp_path / "data").exists()


def test_who_never_shakes_hands_is_bounded_in_number_and_time(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    """Silent ones and half a handshake; another is answered meanwhile, and after a login's time they have gone."""
    authority = Authority(tmp_path / "one")
    cert, key = authority.sign("server", "IP:127.0.0.1")
    flags = ("--http", "127.0.0.1:0", "--http-tls", "--tls-cert", str(cert), "--tls-key", str(key))
    server = start_broker(*flags, env=ENV)
    url = page_of(server)
    look_until(lambda: answers(url, authority.cert), server.process, "it answers")
    host, _, port = url.removeprefix("https://").rpartition(":")
    descriptors = Path(f"/proc/{server.pid}/fd")
    before = len(list(descriptors.iterdir()))
    half = client_hello()[:-1]
    with ExitStack() as stack:
        for number in range(450):
            sock = stack.enter_context(socket.create_connection((host, int(port))))
            if number % 2:
                sock.sendall(half)
        assert len(list(descriptors.iterdir())) <= before + MOST_VISITORS + BACKLOG
        assert answers(url, authority.cert)
        look_until(
            lambda: len(list(descriptors.iterdir())) <= before, server.process, "they have gone"
        )
    assert server.stop() == 0
    assert "Traceback" not in server.output


def test_who_asks_without_encryption_is_told_so(start_broker: StartBroker, tmp_path: Path) -> None:
    """In the clear, as a browser shows it; and whoever trusts another CA leaves a line in the log."""
    authority, other = Authority(tmp_path / "one"), Authority(tmp_path / "two")
    cert, key = authority.sign("server", "IP:127.0.0.1")
    flags = ("--http", "127.0.0.1:0", "--http-tls", "--tls-cert", str(cert), "--tls-key", str(key))
    server = start_broker(*flags, env=ENV)
    url = page_of(server)
    look_until(lambda: answers(url, authority.cert), server.process, "it answers")
    found = httpx.get(url.replace("https", "http"), trust_env=False)
    assert (found.status_code, "https://" in found.text) == (400, True)
    assert not answers(url, other.cert)
    look_until(lambda: "TLS failed" in server.output, server.process, "its line")
    assert server.stop() == 0
