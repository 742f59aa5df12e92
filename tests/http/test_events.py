"""`minibroker events`: what has happened, what happens, and what is missing in between."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from commands_here import CLEAN, here, look
from http_broker import TOKEN, HttpBroker, StartHttp

import minibroker
from minibrokerd.process import exits
from support.processes import look_until


def told(text: str) -> list[Any]:
    """Return lines of JSON."""
    return [json.loads(line) for line in text.splitlines()]


async def test_what_has_happened(http_broker: HttpBroker) -> None:
    """The newest, filtered by level, name and field."""
    async with minibroker.connect(http_broker.server.url) as connection:
        for name in ("mail.in", "mail.out", "photo"):
            await connection.queue(name).set(max_attempts=3)
    look_until(
        lambda: len(told(look(http_broker, "events", "--event", "queue_created", "--json").stdout)) == 3,
        http_broker.server.process,
        "they are told",
    )  # fmt: skip
    flags = ("events", "--event", "queue_*", "--where", "queue=mail.*")
    queues = [each["fields"]["queue"] for each in told(look(http_broker, *flags, "--json").stdout)]
    assert {*queues} == {"mail.in", "mail.out"}
    lines = look(http_broker, *flags, "--count", "1").stdout.splitlines()
    assert len(lines) == 1
    assert "info" in lines[0]
    assert "queue=mail." in lines[0]
    assert look(http_broker, *flags, "--level", "warning").stdout == ""
    wrong = look(http_broker, "events", "--where", "queue")
    assert (wrong.returncode, "FIELD=PATTERN" in wrong.stderr) == (exits.USAGE, True)


def test_what_happens_and_a_broker_that_comes_back(start_http: StartHttp) -> None:
    """It is told at once; a new broker at the same address is told as one, with the gap before it."""
    broker = start_http(token=TOKEN)
    address = broker.url.removeprefix("http://")
    line = [sys.executable, "-m", "minibrokerd", "events", "-f", "--json", "--event", "http_change"]
    follower = subprocess.Popen(
        line,
        env={**CLEAN, "MINIBROKER_HTTP": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _follow(follower, broker, start_http)
    finally:
        follower.kill()
        follower.communicate()


def _follow(follower: subprocess.Popen[str], broker: HttpBroker, start_http: StartHttp) -> None:
    assert follower.stdout is not None
    assert follower.stderr is not None
    bearer = {"authorization": f"Bearer {TOKEN}"}
    path = "/api/v1/queues/mail/messages"
    look_until(lambda: _streams(broker), broker.server.process, "it listens")
    assert broker.client.post(path, json={"text": "the body"}, headers=bearer).is_success
    first = json.loads(follower.stdout.readline())
    assert (first["event"], first["fields"]["queue"]) == ("http_change", "mail")
    assert "the body" not in json.dumps(first)
    broker.server.process.kill()
    broker.server.process.wait()
    assert "is away" in follower.stderr.readline()
    address = broker.url.removeprefix("http://")
    again = start_http("--http", address, token=TOKEN, data_dir=broker.server.data_dir)
    gap = json.loads(follower.stdout.readline())
    assert (gap["missed"], "started again" in gap["text"]) == (None, True)
    stored = again.client.post(path, json={"text": "b"}, headers=bearer).json()
    assert json.loads(follower.stdout.readline())["fields"]["id"] == stored["id"]


def _streams(broker: HttpBroker) -> bool:
    sockets = subprocess.run(
        ["ss", "-Htn", "state", "established", f"( sport = :{broker.url.rpartition(':')[2]} )"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return len(sockets.stdout.splitlines()) >= 2


@contextmanager
def scripted(*answers: list[str] | None) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a port that streams these lines, one answer after the other, None: a refusal.

    Beside it, the `Last-Event-ID` of each request.
    """
    left, ids = list(answers), []

    class Port(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_stream = "/stream" in self.path
            lines = left.pop(0) if is_stream else ['{"events": [], "last": 5}']
            if is_stream:
                ids.append(self.headers.get("last-event-id", ""))
            self.send_response(401 if lines is None else 200)
            self.end_headers()
            self.wfile.write("\n".join([*(lines or []), ""]).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", ids
        server.shutdown()


def said(kind: str, **data: Any) -> list[str]:
    """Return the lines of one server-sent event."""
    return [f"event: {kind}", f"data: {json.dumps(data)}", ""]


def event(number: int) -> list[str]:
    """Return those of one event of the broker."""
    return said("event", number=number, time="now", level="info", event="e", fields={})


def test_what_is_missed_is_counted() -> None:
    """Before the first look, in a gap, and of a broker that was started again; nothing is shown twice."""
    with scripted(
        [*said("hello", run=7, first=10, last=10), *event(10), "event: eve"],
        [*said("hello", run=7, first=10, last=11), *event(11)],
        [*said("hello", run=7, first=15, last=15), *event(15)],
        [*said("hello", run=8, first=1, last=1), ":", "", *event(1)],
        None,
    ) as (address, ids):
        done = here({"MINIBROKER_HTTP": address}, "events", "-f", "--json")
    found = [each.get("number", each.get("missed", "?")) for each in told(done.stdout)]
    assert found == [4, 10, 11, 3, 15, None, 1]
    assert ids == ["", "7-10", "7-11", "7-15", "8-1"]
    assert done.returncode == exits.REFUSED
