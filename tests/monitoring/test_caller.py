"""Calls of a webhook against a real server that is slow, refuses, sends elsewhere, and is well again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from minibrokerd.monitoring.caller import Caller, Patience
from minibrokerd.monitoring.changes import Notice
from minibrokerd.monitoring.webhook import (
    BadWebhook,
    Call,
    Webhook,
    call_of,
    checked_url,
    key_of,
)
from minibrokerd.process import logs
from support.certificates import OPENSSL, Authority

KEY = bytes(range(32))
WAIT_S = 10
QUICK = Patience(attempt_s=0.2, first_wait_s=0.01, most_wait_s=0.02, call_s=30, waiting=3)


class Receiver(ThreadingHTTPServer):
    """Answers as `answers` says, then with 204; 0: not at all."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.server_bind()  # nobody else has the port, and it refuses until `open`
        self.answers: list[int] = []
        self.refused: dict[str, int] = {}  # by id
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.came = threading.Condition()
        self.over = threading.Event()

    def open(self) -> None:
        self.server_activate()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def wait(self, count: int) -> None:
        with self.came:
            assert self.came.wait_for(lambda: len(self.seen) >= count, WAIT_S)

    def wait_for(self, id: str) -> None:
        with self.came:
            ids = lambda: [headers["webhook-id"] for _, headers, _ in self.seen]  # noqa: E731
            assert self.came.wait_for(lambda: id in ids(), WAIT_S)


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        answer = self.server.answers.pop(0) if self.server.answers else 204
        answer = self.server.refused.get(self.headers["webhook-id"], answer)
        with self.server.came:
            names = {name.lower(): value for name, value in self.headers.items()}
            self.server.seen.append((self.path, names, body))
            self.server.came.notify_all()
        if not answer:
            self.server.over.wait(WAIT_S)
            return
        self.send_response(answer)
        if answer == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    server.open()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def made(port: int, patience: Patience = QUICK, scheme: str = "http") -> Caller:
    caller = Caller(patience)
    caller.set(Webhook(f"{scheme}://127.0.0.1:{port}/hook?a=b", KEY))
    return caller


def call(number: int) -> Call:
    return call_of(Notice(f"number {number}", {"number": number}), f"msg_{number}", 1_500)


def end(caller: Caller) -> None:
    ended = threading.Event()
    caller.end(ended.set)
    assert ended.wait(WAIT_S)


def test_a_call_is_made_until_it_is_taken_and_its_signature_holds(receiver: Receiver) -> None:
    """Slow, 500, a redirect that nobody follows, then fine: one id, and each time a signature of its own."""
    receiver.answers = [0, 500, 302]
    caller = made(receiver.server_port)
    caller.put(call(1))
    receiver.wait(4)
    end(caller)
    assert (caller.sent, caller.failed, caller.dropped) == (1, 3, 0)
    assert [path for path, _, _ in receiver.seen] == 4 * ["/hook?a=b"]
    for _, headers, body in receiver.seen:
        assert headers["webhook-id"] == "msg_1"
        stamp = headers["webhook-timestamp"]
        assert abs(int(stamp) - time.time()) < 60
        # RFC 2104 by hand, without the module that made it.
        text = b"msg_1." + stamp.encode() + b"." + body
        key = KEY.ljust(64, b"\0")
        inner = hashlib.sha256(bytes(one ^ 0x36 for one in key) + text).digest()
        outer = hashlib.sha256(bytes(one ^ 0x5C for one in key) + inner).digest()
        assert headers["webhook-signature"] == "v1," + base64.b64encode(outer).decode()
        assert body == (
            b'{"type": "number 1", "timestamp": "1970-01-01T00:00:01.500Z", "data": {"number": 1}}'
        )


def test_what_finds_nobody_comes_when_somebody_is_there_and_the_oldest_give_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of_third = threading.Event()

    def listen(event: Mapping[str, Any]) -> None:
        if event.get("type") == "number 2":
            of_third.set()

    monkeypatch.setattr(logs, "listener", listen)
    server = Receiver()
    caller = made(server.server_port)
    for number in range(5):
        caller.put(call(number))
    assert caller.dropped == 2
    assert of_third.wait(WAIT_S)  # no attempt of one that was dropped is under way any more
    server.open()
    try:
        server.wait(3)
        end(caller)
        assert [headers["webhook-id"] for _, headers, _ in server.seen] == [
            "msg_2",
            "msg_3",
            "msg_4",
        ]
        assert (caller.sent, caller.dropped) == (3, 2)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [410, 500], ids=["gone", "for too long"])
def test_a_call_is_given_up_and_the_next_one_made(status: int, receiver: Receiver) -> None:
    """At once by a receiver that says that it is gone; else after a bounded time."""
    receiver.refused["msg_1"] = status
    caller = made(receiver.server_port, Patience(0.2, 0.01, 0.01, 0.1, 3))
    caller.put(call(1))
    caller.put(call(2))
    receiver.wait_for("msg_2")
    end(caller)
    assert (caller.sent, caller.dropped) == (1, 1)
    assert caller.failed == len(receiver.seen) - 1
    assert (caller.failed == 1) == (status == 410)


def test_an_end_tries_once_more_and_does_not_wait_for_the_next_attempt(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says how many calls nobody took, and why."""
    said: list[dict[str, object]] = []
    monkeypatch.setattr(logs, "listener", said.append)
    receiver.answers = [500, 500]
    caller = made(receiver.server_port, Patience(0.2, 3_600, 3_600, 36_000, 3))
    caller.put(call(1))
    receiver.wait(1)
    end(caller)  # waits for less than the hour until the next attempt
    assert (caller.sent, caller.dropped) == (0, 1)
    assert [(each["calls"], each["reason"]) for each in said if "calls" in each] == [
        (1, "the broker stops")
    ]


@pytest.mark.parametrize("late", [False, True], ids=["at once", "after the time is over"])
def test_an_answer_that_never_ends_is_cut_off(late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that sends a little all the time holds an attempt for its time, and no longer.

    Also one whose name took so long to be looked up, or whose handshake.
    """
    over = threading.Event()
    connect = HTTPConnection.connect

    def slowly(self: HTTPConnection) -> None:
        over.wait(0.25)
        connect(self)

    if late:
        monkeypatch.setattr(HTTPConnection, "connect", slowly)

    def trickle(server: socket.socket) -> None:
        with server.accept()[0] as peer, suppress(OSError):
            peer.sendall(b"HTTP/1.1 200 OK\r\n")
            while not over.wait(0.02):
                peer.sendall(b"X-More: and more\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=trickle, args=(server,), daemon=True)
        thread.start()
        caller = made(server.getsockname()[1], Patience(0.2, 0.01, 0.01, 0.1, 3))
        caller.put(call(1))
        end(caller)  # what comes to it has no end, so this has one by the broker's patience alone
        assert (caller.sent, caller.failed, caller.dropped) == (0, 1, 1)
        over.set()
        thread.join(WAIT_S)


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not there")
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_the_certificate_of_a_receiver_is_verified(
    known: bool, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the CAs of the system, of which a variable of OpenSSL names another file."""
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("receiver", "IP:127.0.0.1"))
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
    caller = made(receiver.server_port, Patience(2, 60, 60, 900, 3), "https")
    caller.put(call(1))
    end(caller)
    assert (caller.sent, caller.dropped) == ((1, 0) if known else (0, 1))
    assert len(receiver.seen) == caller.sent


def test_the_key_is_shown_nowhere_and_reads_as_the_specification_says() -> None:
    """The example of the specification: its secret, id, time and body give its signature."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    key = key_of(secret)
    text = b'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}'
    signature = base64.b64encode(hmac.digest(key, text, "sha256")).decode()
    assert signature == "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    webhook = Webhook("https://h:1/a?token=b", key)
    assert repr(key) not in repr(webhook)
    assert webhook.shown == "https://h:1"


@pytest.mark.parametrize(
    "url",
    ["ftp://h/", "h/x", "http://", "http://a:b@h/", "http://a@h/", "http://h:x/", "http://h/ x"],
)
def test_an_address_that_is_not_called(url: str) -> None:
    with pytest.raises(BadWebhook):
        checked_url(url)


@pytest.mark.parametrize("secret", ["", "AAAA", "whsec_", "whsec_AAAA", "whsec_!" + 40 * "A"])
def test_a_secret_that_is_none_is_not_shown(secret: str) -> None:
    with pytest.raises(BadWebhook) as raised:
        key_of(secret)
    assert not secret or secret not in str(raised.value) or secret == "whsec_"
