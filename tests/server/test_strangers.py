"""Peers that speak something else get one line in the log and an answer that they can show."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import struct
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hand import Hand, frame, part

from minibrokerd.net.strangers import recognise
from support.broker import BrokerServer
from support.processes import DEADLINE_S, look_until

KAFKA = struct.pack(">IHHIh", 22, 18, 3, 1, 4) + b"test" + bytes(8)
SPOKEN = {
    b"GET / HTTP/1.0\r\n\r\n": ("HTTP", b"HTTP/1.1 400 "),
    b"POST /v1/messages HTTP/1.1\r\nHost: a\r\n\r\n{}": ("HTTP", b"HTTP/1.1 400 "),
    b"HEAD /health HTTP/1.1\r\n\r\n": ("HTTP", b"HTTP/1.1 400 "),
    b"CONNECT a:443 HTTP/1.1\r\n\r\n": ("HTTP", b"HTTP/1.1 400 "),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": ("HTTP/2", b"\0\0\0\4\0\0\0\0\0"),
    b"PROXY TCP4 10.0.0.1 10.0.0.2 3000 7272\r\n": ("PROXY", b"\0\0"),
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c": ("PROXY", b"\0\0"),
    b"*1\r\n$4\r\nPING\r\n": ("Redis", b"-ERR this is minibroker"),
    b"*3\r\n$5\r\nHELLO\r\n": ("Redis", b"-ERR this is minibroker"),
    b"PING\r\n": ("Redis", b"-ERR this is minibroker"),
    b"AUTH secret\r\n": ("Redis", b"-ERR this is minibroker"),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": ("TLS", b"\x15\x03\x01\x00\x02\x02\x28"),
    b"AMQP\0\0\x09\x01": ("AMQP", b"AMQP\0\0\0\0"),
    b"AMQP\3\1\0\0": ("AMQP", b"AMQP\0\0\0\0"),
    b"\x10\x10\0\4MQTT\4\2\0\x3c\0\4test": ("MQTT", b"\x20\2\0\3"),
    b"\x10\x12\0\6MQIsdp\3\2\0\x3c\0\4test": ("MQTT", b"\x20\2\0\3"),
    b"\x10\x11\0\4MQTT\5\2\0\x3c\0\0\4test": ("MQTT", b"\x20\x53\0\x84"),
    b"SSH-2.0-OpenSSH_9.6\r\n": ("SSH", b"this is minibroker"),
    b"EHLO a\r\n": ("SMTP", b"554 this is"),
    b"get key\r\n": ("memcached", b"SERVER_ERROR this is"),
    b"version\r\n": ("memcached", b"SERVER_ERROR this is"),
    b"\x80\x0b" + bytes(22): ("memcached", b""),
    b"put 0 0 60 1\r\na\r\n": ("beanstalkd", b"INTERNAL_ERROR this"),
    b'CONNECT {"verbose":false}\r\n': ("NATS", b"-ERR 'this is"),
    b"CONNECT\naccept-version:1.2\n\n\0": ("STOMP", b"ERROR\nmessage:this"),
    b"\0\0\0\x08\x04\xd2\x16\x2f": ("PostgreSQL", b"NE\0\0"),
    b"\0\0\0\x20\0\3\0\0user\0a\0" + bytes(32): ("PostgreSQL", b"E\0\0"),
    KAFKA: ("Kafka", b""),
    b"hello?\r\n": ("this text", b"ERROR this is minibroker"),
}
OURS = (
    frame(part("hello", protocol=1, client="x")),
    frame(part("hello", protocol=1, client="GET / HTTP/1.1")),
    frame(part("resume", protocol=1, session=1, secret=b"x" * 32, client="x", runs=0)),
)


@pytest.mark.parametrize("first", SPOKEN, ids=lambda first: repr(first[:16]))
def test_what_it_speaks_is_named_and_answered(first: bytes) -> None:
    """The answer has the form of its protocol, and says what this is."""
    peer = Hand().connect()
    speaks, begins = SPOKEN[first]
    stranger = recognise(first)
    assert stranger is not None
    assert stranger.speaks == speaks
    peer.give(first)
    answer = bytes(peer.transport.taken)
    assert answer.startswith(begins)
    assert b"minibroker" in answer or speaks in ("TLS", "AMQP", "Kafka", "memcached", "MQTT")
    assert len(answer) < 500
    peer.give(b"more of it")  # is not looked at any more
    assert bytes(peer.transport.taken) == answer


@pytest.mark.parametrize("first", SPOKEN, ids=lambda first: repr(first[:16]))
def test_also_if_it_comes_byte_by_byte(first: bytes) -> None:
    """What four bytes cannot tell is answered as text, or with an error frame; never with silence."""
    peer = Hand().connect()
    peer.give(first, 1)
    assert peer.transport.taken or first[:1] == b"\x80"
    assert peer.transport.ended or peer.closed


@pytest.mark.parametrize("sent", OURS)
def test_clients_of_ours_are_none(sent: bytes) -> None:
    """Whatever they are called."""
    assert recognise(sent[:64]) is None


def test_what_a_logged_in_client_sends_is_not_guessed_at() -> None:
    """It has shown what it is."""
    peer = Hand().login()
    peer.give(b"GET / HTTP/1.0\r\n\r\n")
    assert peer.take()[0]["code"] == "protocol_error"


def test_a_proxy_header_is_named_in_the_log(broker_server: BrokerServer) -> None:
    """Its answer is an error frame: a client of ours stands behind it."""
    with socket.create_connection(("127.0.0.1", broker_server.port), DEADLINE_S) as peer:
        peer.sendall(b"PROXY TCP4 10.0.0.1 10.0.0.2 3000 7272\r\n")
        assert b"protocol_error" in peer.recv(1_000)
    assert " speaks=PROXY " in last_line(broker_server, "connection_refused")


def test_the_connection_closes_when_the_answer_had_its_time() -> None:
    """A peer that has not read would lose the answer by a close in front of its own bytes."""
    hand = Hand()
    peer = hand.connect().give(b"GET / HTTP/1.0\r\n\r\n")
    assert not peer.closed
    (closing,) = [timer for timer in hand.loop.timers if timer.when_s < hand.loop.now_s + 1]
    closing.call()
    assert peer.closed


# -- against real programs ------------------------------------------------------------------------


def test_a_health_check_by_http_shows_the_sentence(broker_server: BrokerServer) -> None:
    """As somebody would see it who opens the port in a browser."""
    url = f"http://127.0.0.1:{broker_server.port}/healthz"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, timeout=DEADLINE_S)
    assert caught.value.code == 400
    assert b"this is minibroker" in caught.value.read()
    line = last_line(broker_server, "connection_refused")
    assert " speaks=HTTP " in line
    assert " peer=127.0.0.1:" in line


def last_line(server: BrokerServer, text: str) -> str:
    """Wait for a line with this text, and return it."""
    look_until(lambda: text in server.output, server.process, text)
    return [line for line in server.lines if text in line][-1]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("flags", [("--http2-prior-knowledge",), ("-T", "-"), ("-I",)])
def test_curl(broker_server: BrokerServer, flags: tuple[str, ...]) -> None:
    """HTTP/2 without asking, a body without a length, a request for the head alone: none of them hangs."""
    command = ["curl", "-s", "-m", "10", *flags, f"http://127.0.0.1:{broker_server.port}/"]
    done = subprocess.run(command, capture_output=True, input=b"x" * 100_000, check=False)
    assert done.returncode not in (28, 7)
    assert "HTTP" in last_line(broker_server, "connection_refused")


async def test_a_client_with_tls_hears_an_alert(broker_server: BrokerServer) -> None:
    """Which its library shows, instead of a "wrong version number"."""
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.handshake.failure"):
        await asyncio.open_connection("127.0.0.1", broker_server.port, ssl=context)
    assert " speaks=TLS " in last_line(broker_server, "connection_refused")


def test_a_probe_that_connects_and_leaves_logs_nothing(tmp_path: Path) -> None:
    """At debug, that it was there; over IPv6, its address in brackets."""
    server = BrokerServer(tmp_path / "data", "--host", "::1", "--log-format", "json")
    try:
        for _ in range(5):
            socket.create_connection(("::1", server.port), DEADLINE_S).close()
        with socket.create_connection(("::1", server.port), DEADLINE_S) as peer:
            port = peer.getsockname()[1]
            peer.sendall(b"SSH-2.0-x\r\n")
            assert b"minibroker" in peer.recv(1_000)
        assert server.stop() == 0
    finally:
        server.close()
    told = [json.loads(line) for line in server.lines if line.startswith("{")]
    (refused,) = [event for event in told if event["event"].startswith("connection")]
    assert (refused["peer"], refused["speaks"]) == (f"[::1]:{port}", "SSH")


def test_a_thousand_requests_are_a_few_lines(broker_server: BrokerServer) -> None:
    """The first, and how many followed."""
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", broker_server.port), DEADLINE_S) as peer:
            peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert peer.recv(1_000)
    assert broker_server.stop() == 0
    told = [line for line in broker_server.lines if "connection_" in line or "repeated" in line]
    assert len(told) < 8
    counts = [int(line.partition(" count=")[2].split()[0]) for line in told if " count=" in line]
    assert sum(counts) == 199
