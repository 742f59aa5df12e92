"""`minibroker top` on a real terminal against a real broker: keys are pressed, and the screen is read."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pyte
import pytest
from terminal import DEADLINE_S, Terminal, terminal
from typing_commands import typed

import minibroker
from minibrokerd.cli.top_looking import look_at
from minibrokerd.cli.top_numbers import COLUMNS as TABLE_COLUMNS
from minibrokerd.process import exits
from support.broker import BrokerServer, StartBroker
from support.processes import look_until

HTTP = re.compile(r"^  http +http://(\S+)")
OVERVIEW = {
    "version": "0.1.0",
    "phase": "ready",
    "queues": 0,
    "now_unix_ms": 0,
    "started_unix_ms": 0,
    "connections": 0,
    "memory_bytes": 0,
    "memory_limit_bytes": 0,
    "log": {"disk_bytes": 0, "free_bytes": 0, "lacks_space": True, "sync_p99_ms": 0.0},
}
LEAVES = b"\x1b[?1049l"  # the screen of the shell is back


class Shown:
    """What a person sees who sits in front of `minibroker top`."""

    def __init__(self, made: Terminal, columns: int, lines: int) -> None:
        self.terminal = made
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._fed = 0

    def until(self, see: Callable[[str], object]) -> str:
        """Return the text of the screen as soon as `see` finds in it what it looks for.

        What comes may be half a screen: the rest of it may lack, so all that has to be there is for `see` to say.
        """
        end_s = monotonic() + DEADLINE_S
        while not see(text := "\n".join(self.screen.display)):
            assert monotonic() < end_s, f"never came:\n{text}"
            assert self.terminal.read(), f"it ended before that came:\n{text}"
            written = self.terminal.written
            self._stream.feed(written[self._fed :])
            self._fed = len(written)
        return text

    def has(self, *words: str) -> str:
        """Wait for all these words."""
        return self.until(lambda text: all(word in text for word in words))

    def lists(self, *names: str, has: str = "") -> None:
        """Wait for a table of these queues, in this order, and a text."""
        self.until(lambda text: has in text and rows(text) == [*names])

    def resize(self, columns: int, lines: int) -> None:
        """Give the window another size, which the kernel tells the program of."""
        self.screen.resize(lines, columns)
        self.terminal.resize(columns, lines)
        self.terminal.process.send_signal(signal.SIGWINCH)


def address_of(server: BrokerServer) -> str:
    """Return where its HTTP port is."""

    def found() -> list[str]:
        return [match[1] for line in server.lines if (match := HTTP.match(line))]

    look_until(lambda: bool(found()), server.process, "its HTTP port")
    address = found()[-1]
    look_until(lambda: _answers(address), server.process, "an answer")
    return address


def _answers(address: str) -> bool:
    try:
        with urlopen(f"http://{address}/healthz", timeout=5):
            return True
    except URLError:
        return False


@pytest.fixture
def filled(start_broker: StartBroker) -> BrokerServer:
    """A broker with an HTTP port and three queues."""
    server = start_broker("--http", "127.0.0.1:0", env={"MINIBROKER_NO_HTTP": "0"})
    asyncio.run(publish(server, small=1, medium=20, large=300))
    return server


async def publish(server: BrokerServer, **counts: int) -> None:
    """Publish so many messages into each queue."""
    async with minibroker.connect(server.url) as broker:
        for name, count in counts.items():
            await broker.queue(name).publish_many([b"x"] * count)


@contextmanager
def shown(
    server: BrokerServer,
    *words: str,
    columns: int = 100,
    lines: int = 20,
    env: Mapping[str, str] | None = None,
) -> Iterator[Shown]:
    """Run `minibroker top` at a broker."""
    at = {"MINIBROKER_HTTP": address_of(server)}
    with terminal(columns, "top", *words, lines=lines, env={**at, **(env or {})}) as made:
        yield Shown(made, columns, lines)


def rows(text: str) -> list[str]:
    """Return the names in the table, in their order; none where its head is not there yet."""
    lines = text.splitlines()
    head = next((at for at, line in enumerate(lines) if line.startswith("queue")), len(lines))
    return [line.split()[0] for line in lines[head + 1 : -1] if line.strip()]


def of_the_holder(text: str) -> tuple[list[str], str] | None:
    """Return what the client "the holder" has of each kind, and the message it works on; None: it has no row."""
    rows = [line.split() for line in text.splitlines() if line.startswith("the holder")]
    return (rows[0][3:7], rows[0][-1]) if rows else None


def test_keys_work_and_the_terminal_is_as_it_was(filled: BrokerServer) -> None:
    """Order, filter, another size of the window; `q` ends with 0."""
    with shown(filled, "--every", "100ms") as top:
        before = top.terminal.before
        top.lists("large", "medium", "small", has="done 0/s")
        top.terminal.type("r")
        top.lists("small", "medium", "large")
        top.terminal.type("/med\n")
        top.lists("medium", has="1 of 3 queues")
        top.resize(60, 8)
        top.until(lambda text: "dead/s" not in text and "medium" in text)
        top.terminal.type("\x1b")
        top.lists("small", "medium", "large")
        assert top.terminal.settings != before
        top.terminal.type("q")
        top.terminal.end()
        assert top.terminal.process.returncode == exits.DONE
        assert (LEAVES in top.terminal.written, top.terminal.settings) == (True, before)


async def test_one_queue_is_shown_with_those_who_have_its_messages(
    start_broker: StartBroker,
) -> None:
    """Enter and Escape; the client that holds most comes first, with what it works on for the longest time."""
    server = start_broker("--http", "127.0.0.1:0", env={"MINIBROKER_NO_HTTP": "0"})
    await publish(server, mail=3, other=1)
    async with minibroker.connect(server.url, name="the holder") as broker:
        messages = await broker.queue("mail").receive(2)
        with shown(server, "--every", "100ms", "--sort", "begun") as top:
            await asyncio.to_thread(top.has, "mail", "other", "in 0/s")
            top.terminal.type("\n")
            both = ["0", "0", "0", "2"], "1-0"
            await asyncio.to_thread(top.until, lambda text: of_the_holder(text) == both)
            for message in messages:
                await message.ack(confirmed=True)
            await asyncio.to_thread(top.has, "nobody consumes it", "acked 2")
            await broker.queue("mail").delete(force=True)
            await asyncio.to_thread(top.has, "there is no such queue")
            top.terminal.type("\x1b")
            await asyncio.to_thread(top.until, lambda text: "1 queue" in text)
            top.terminal.type("?")
            await asyncio.to_thread(top.has, "any key goes back")


def test_all_queues_come_in_pages() -> None:
    """None is left out, and the filter and the place in the list go along."""
    every = [f"queue-{number}" for number in range(1_200)]
    asked: list[str] = []

    class Pages:
        def get(self, path: str, match: str = "", count: int = 0, after: str = "") -> Any:
            if path == "overview":
                return OVERVIEW
            assert match == "queue"
            asked.append(after)
            start = every.index(after) + 1 if after else 0
            page = every[start : start + count]
            row = {
                "is_dlq": False,
                "oldest_ready_ms": 0,
                "counts": {},
                "wait_p95_ms": -1,
                "run_p95_ms": -1,
            }
            last = start + count >= len(every)
            return {
                "queues": [{"name": name, **row} for name in page],
                "next": "" if last else page[-1],
            }

    api: Any = Pages()
    assert list(look_at(api, "queue").queues) == every
    assert len(asked) == 3


def test_numbers_follow_the_broker(filled: BrokerServer) -> None:
    """What is published while somebody looks is seen, with a rate, and nothing new while it is paused."""
    with shown(filled, "--every", "100ms", "--filter", "small") as top:
        top.has("ready 1 ", "in 0/s")
        asyncio.run(publish(filled, small=41))
        top.has("ready 42 ")
        top.until(lambda text: "in 0/s" in text)
        top.terminal.type("p")
        top.has("PAUSED")
        asyncio.run(publish(filled, small=8))
        top.terminal.type("p")
        top.has("ready 50 ")


def test_a_broker_that_goes_is_away_until_it_is_back(
    filled: BrokerServer, start_broker: StartBroker
) -> None:
    """The screen says so, keeps what was seen, and goes on by itself with the broker that comes."""
    with shown(filled, "--every", "100ms", "--sort", "queue") as top:
        top.has("large", "in 0/s")
        address = address_of(filled)
        filled.kill()
        top.has("AWAY for ", "refused", "large")
        env = {"MINIBROKER_NO_HTTP": "0"}
        start_broker("--http", address, data_dir=filled.data_dir, env=env)
        top.until(lambda text: "AWAY" not in text and "large" in text)


def test_a_broker_that_does_not_answer_is_not_waited_for(filled: BrokerServer) -> None:
    """The screen says how long it has been silent, and keys work meanwhile."""
    with shown(filled, "--every", "100ms") as top:
        top.has("large", "in 0/s")
        filled.process.send_signal(signal.SIGSTOP)
        top.has("no answer for")
        top.terminal.type("/sm\nq")
        top.terminal.end()
        filled.process.send_signal(signal.SIGCONT)
        assert top.terminal.process.returncode == exits.DONE


def test_an_error_of_its_own_leaves_the_terminal_as_it_was() -> None:
    """It is not lost in the thread that looks; here it is an answer that no broker gives."""
    whole = {"queues": [], "total": 0, "next": ""}
    lists = iter([whole, whole, {}])

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = next(lists) if "/queues" in self.path else OVERVIEW
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"127.0.0.1:{server.server_port}"
        with terminal(80, "top", "--every", "100ms", "--http", at) as made:
            before = made.before
            text = made.end()
            assert (made.process.returncode, made.settings) == (1, before)
            assert "KeyError" in text.partition(LEAVES.decode())[2]
        server.shutdown()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(filled: BrokerServer, number: int) -> None:
    """It ends the process as it ends others; Ctrl-C has its exit code."""
    with shown(filled) as top:
        before = top.terminal.before
        top.has("large")
        top.terminal.process.send_signal(number)
        top.terminal.end()
        code = exits.INTERRUPTED if number == signal.SIGINT else -number
        assert top.terminal.process.returncode == code
        assert (LEAVES in top.terminal.written, top.terminal.settings) == (True, before)


@pytest.mark.parametrize(("env", "colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_those_who_want_them(
    filled: BrokerServer, env: dict[str, str], colours: bool
) -> None:
    """Without them the row of the cursor still stands out."""
    with shown(filled, "--every", "100ms", env=env) as top:
        top.has("large")
        filled.kill()

        def cells() -> list[pyte.screens.Char]:
            return [cell for row in top.screen.buffer.values() for cell in row.values()]

        top.until(
            lambda text: (
                "AWAY" in text and {cell.data for cell in cells() if cell.reverse} > set("large300")
            )
        )
        assert ("red" in {cell.fg for cell in cells()}) == colours


def test_once_and_json_need_no_terminal(filled: BrokerServer) -> None:
    """A table for people, a document for programs, with rates of two looks."""
    env = {"MINIBROKER_HTTP": address_of(filled), "MINIBROKER_TOP_EVERY": "100ms"}
    lines = typed("top", "--once", "--sort", "queue", env=env).stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["queue", "large", "medium", "small"]
    assert "in 0/s" in lines[1]
    found = json.loads(typed("top", "--once", "--json", "--filter", "m*", env=env).stdout)
    (queue,) = found["queues"]
    assert (queue["name"], queue["counts"]["ready"]) == ("medium", 20)
    assert queue["rates"]["published"] == 0
    assert found["overview"]["queues"] == 3


@pytest.mark.parametrize("columns", [40, 60, 100, 200])
def test_one_table_is_as_wide_as_it_may_be(filled: BrokerServer, columns: int) -> None:
    """Also in a pipe, by COLUMNS; nothing is left out."""
    env = {"MINIBROKER_HTTP": address_of(filled), "COLUMNS": str(columns)}
    said = typed("top", "--once", "--every", "100ms", env=env).stdout
    assert max(map(len, said.splitlines())) <= columns, said
    words = {word for column in TABLE_COLUMNS for word in column.head.split()}
    assert {"large", "medium", "small", "queue", *words} <= set(said.split()), said


def test_where_no_screen_can_be_shown_it_says_what_can(tmp_path: Path) -> None:
    """No terminal, or one that nothing is known of: a usage error that names --once; nobody there is another."""
    done = typed("top")
    assert (done.returncode, "--once" in done.stderr) == (exits.USAGE, True)
    with terminal(80, "top", env={"TERM": "no-such-terminal"}) as made:
        text = made.end()
        assert (made.process.returncode, "TERM=no-such-terminal" in text) == (exits.USAGE, True)
    with terminal(80, "top", "--http", "127.0.0.1:1") as made:
        assert "--http" in made.end()
        assert made.process.returncode == exits.UNREACHABLE
