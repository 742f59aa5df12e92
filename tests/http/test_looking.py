"""`minibroker connections` and `who` against a broker that has clients."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest
from commands_here import CLEAN, here, look
from http_broker import HttpBroker, StartHttp

import minibroker
from minibrokerd.cli.main import COMMANDS, main
from minibrokerd.process import exits
from minibrokerd.process.exits import CHECK_EXITS


async def test_who_has_a_message_and_from_where(http_broker: HttpBroker) -> None:
    """Held by a client, named with its address; waiting, it has a state; one that is not there ends with 1."""
    async with minibroker.connect(http_broker.server.url, name="the holder") as connection:
        await connection.queue("other").publish("x")
        first = await connection.queue("mail").publish("a")
        second = await connection.queue("mail").publish("b")
        (message,) = await connection.queue("mail").receive()
        assert message.id == first.id
        held = look(http_broker, "who", str(first.id)).stdout
        assert f"{first.id} in mail is begun by the holder (127.0.0.1:" in held, held
        assert "its lease of 30s ends at " in held, held
        holder = json.loads(look(http_broker, "who", str(first.id), "--json").stdout)["holder"]
        left_ms = holder["lease_until_unix_ms"] - holder["since_unix_ms"]
        assert 29_000 < left_ms <= 31_000
        waits = json.loads(look(http_broker, "who", str(second.id), "--json").stdout)
        assert (waits["queue"], waits["state"], waits["holder"]) == ("mail", "ready", None)
        table = look(http_broker, "connections").stdout
        (line,) = [line for line in table.splitlines() if line.startswith("the holder")]
        assert "127.0.0.1:" in line
        await message.ack(confirmed=True)
    gone = look(http_broker, "who", str(first.id))
    assert (gone.returncode, "no message" in gone.stderr) == (exits.REFUSED, True)


def test_nobody_answers_there() -> None:
    """The message names the flag, and the code is that of every server that is not there."""
    done = subprocess.run(
        [sys.executable, "-m", "minibrokerd", "connections", "--http", "127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, "--http" in done.stderr) == (exits.UNREACHABLE, True)


async def test_a_message_is_found_wherever_it_went(http_broker: HttpBroker) -> None:
    """Held and not begun, delayed, in the dead-letter queue, and in a queue that it was moved to."""
    async with minibroker.connect(http_broker.server.url) as connection:
        mail, other = connection.queue("mail"), connection.queue("other")
        later = await mail.publish("later", delay=60)
        assert "in mail is delayed" in look(http_broker, "who", str(later.id)).stdout
        dead = await mail.publish("dead")
        (message,) = await mail.receive()
        await message.reject(ValueError("no"), confirmed=True)
        assert "in mail.dlq is ready" in look(http_broker, "who", str(dead.id)).stdout
        moved = await mail.publish("moved")
        await other.publish("x")
        await mail.move("other", [moved.id])
        assert "in other is ready" in look(http_broker, "who", str(moved.id)).stdout
        assert look(http_broker, "who", str(moved.id), "--queue", "mail").returncode == 1


def test_a_redirect_does_not_get_the_token() -> None:
    """Whatever answers at that address is not asked to send it elsewhere."""
    asked: list[tuple[str, str | None]] = []

    class Sends(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("authorization")))
            self.send_response(302)
            self.send_header("location", f"http://{self.headers['host']}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Sends) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {
            **CLEAN,
            "MINIBROKER_TOKEN": "secret",
            "MINIBROKER_HTTP": f"127.0.0.1:{server.server_port}",
        }
        line = [sys.executable, "-m", "minibrokerd", "connections"]
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=30, check=False, env=env
        )
        server.shutdown()
    assert done.returncode == exits.REFUSED
    assert [authorization for _, authorization in asked] == ["Bearer secret"]


# How each command that asks a broker is typed; those that are not here are below, or ask none.
ASKS = {
    "ping": (),
    "retime": ("1-0", "now"),
    "explain": ("1-0",),
    "result": ("1-0",),
    "publish": ("mail", "x"),
    "consume": ("mail", "--count", "1"),
    "queues": (),
    "queue": ("show", "mail"),
    "stats": (),
    "peek": ("mail",),
    "message": ("show", "mail", "1-0"),
    "check": ("--disk-free", "off", "--consumers-gone", "off", "--sync-p99", "off"),
    "events": (),
    "top": ("--once", "--every", "100ms"),
    "connections": (),
    "who": ("1-0",),
    "cancel": ("mail", "1-1", "--yes"),
    "schedule": ("list",),
    "pause": ("--worker", "nobody"),
    "resume": ("--worker", "nobody"),
    "pauses": (),
    "key": ("list", "mail"),
    "exchange": ("list",),
    "policy": ("list",),
    "group": ("set", "events", "audit"),
    "read": ("events",),
    "purge": ("mail", "--yes"),
    "dlq": ("list", "mail"),
    "export": ("mail", "--out", "OUT"),
    "import": ("mail", "/dev/null"),
}
ENDS_WITH = {"result": exits.NOT_YET}  # nobody has acked it
ASKS_OTHERWISE = {"serve", "worker", "bench", "bridge"}  # they have an address, and run on


def test_every_command_that_asks_a_broker_is_walked_here() -> None:
    """A new one with an address has to say how it is typed."""
    context = click.Context(main)
    found = {name for name in COMMANDS if _has_address(main.get_command(context, name))}
    assert found == set(ASKS) | ASKS_OTHERWISE


def _has_address(command: click.Command | None) -> bool:
    if isinstance(command, click.Group):
        return any(map(_has_address, command.commands.values()))
    assert command is not None
    return any({"--url", "--http"} & set(option.opts) for option in command.params)


def test_every_command_takes_its_token_from_the_file(start_http: StartHttp, tmp_path: Path) -> None:
    """MINIBROKER_TOKEN_FILE, for the port of clients and for that of HTTP; without it none is let in."""
    data, file = tmp_path / "data", tmp_path / "token"
    may = ["--may", "publish,consume,manage", "--data-dir", str(data), "--json"]
    made = here({}, "token", "add", "all", "--queues", "*", *may)
    file.write_text(json.loads(made.stdout)["token"] + "\n")
    broker = start_http(data_dir=data)
    at = {"MINIBROKER_URL": broker.server.url, "MINIBROKER_HTTP": broker.url}
    known = {**at, "MINIBROKER_TOKEN_FILE": str(file)}
    assert here(known, "publish", "mail", "x").returncode == 0
    assert here(known, "queue", "set", "events", "kind=log").returncode == 0
    for name, asked in ASKS.items():
        words = tuple(str(tmp_path / "out") if word == "OUT" else word for word in asked)
        done = here(known, name, *words)
        expected = ENDS_WITH.get(name, 0)
        assert (done.returncode, "MINIBROKER_TOKEN" in done.said) == (expected, False), (name, done)
    for name in ("ping", "check", "events", "who"):  # a login that fails is answered late
        done = here(at, name, *ASKS[name])
        refused = [CHECK_EXITS[3].code] if name == "check" else [exits.REFUSED, exits.UNREACHABLE]
        assert (done.returncode in refused, "MINIBROKER_TOKEN" in done.said) == (True, True), done
        assert "version" not in done.said  # it is the right port, and only a token is missing


@pytest.mark.parametrize("word", ["https://minibroker.example", "http://[::1]:7273", "[::1]:7273"])
def test_addresses_of_the_http_port(word: str) -> None:
    """host:port, or the URL of a proxy in front of it."""
    context = main.make_context(
        "minibroker", ["connections", "--http", word], resilient_parsing=True
    )
    command = main.get_command(context, "connections")
    assert command is not None
    made = command.make_context("connections", ["--http", word], parent=context)
    assert made.params["http"].endswith(word.removeprefix("http://").removeprefix("https://"))
