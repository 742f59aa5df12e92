"""What commands print on real terminals, of any width, and where letters are missing."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess

import pytest
from terminal import STYLE, lines_at, terminal
from typing_commands import CLEAN, output, typed

import minibroker
from minibrokerd.cli.layout import width_of
from minibrokerd.process import exits
from support.broker import COMMAND, BrokerServer

QUEUE = "bookings-of-the-week"
LONG = "Kraków → 東京 " * 30
WIDTHS = (40, 60, 80, 100, 200)

# Each command that prints a table, and what must be seen of it at every width.
TABLES = {
    f"peek {QUEUE}": ("id", "state", "attempts", "age", "key", "body", "1-2", "ready", "Krak"),
    "queues": (QUEUE, "messages", "ready", "delayed", "held", "begun", "dead", "consumers"),
    "stats": (QUEUE, "ready", "published", "acked", "dead_lettered", "damaged"),
    f"queue show {QUEUE}": ("setting", "value", "default", "meaning", "retry_factor_percent"),
    f"dlq list {QUEUE}": ("id", "attempts", "cause", "error", "dead for", "1-0", "ValueError"),
    f"dlq show {QUEUE} 1-0": ("started", "took", "client", "cause", "error", "ValueError"),
    "exits": ("code", "what happened", "what to do", "141", "nothing"),
    "config": ("flag", "value", "from", "variable", "MINIBROKER_DRAIN_TIMEOUT"),
    "log check": ("what", "found", "read", "segment"),
    "log stats": ("segment", "generation", "live messages", "pinned by", "what lives"),
}


@pytest.fixture
def filled(broker_server: BrokerServer) -> dict[str, str]:
    """A queue with a long body and a dead message; the environment that names its server."""

    async def fill() -> None:
        async with minibroker.connect(broker_server.url, name="filler-of-the-queue") as broker:
            queue = broker.queue(QUEUE)
            await queue.publish(b"bad")
            (message,) = await queue.receive()
            await message.reject(ValueError("no such address: " + LONG))
            await queue.publish_many([b"plain", LONG.encode()], key="customer-東京-4711")

    asyncio.run(fill())
    return {
        "MINIBROKER_URL": broker_server.url,
        "MINIBROKER_DATA_DIR": str(broker_server.data_dir),
    }


def test_no_column_is_lost_on_a_terminal_of_any_width(filled: dict[str, str]) -> None:
    """No line is wider than it (`lines_at` looks); what is cut ends in an ellipsis."""
    for command, names in TABLES.items():
        for columns in WIDTHS:
            text = "\n".join(lines_at(columns, *command.split(), env=filled))
            missing = [name for name in names if name not in text]
            assert not missing, f"{command} at {columns}:\n{text}"


def test_what_is_cut_ends_in_an_ellipsis(filled: dict[str, str]) -> None:
    """Beside the others, or below them."""
    for columns in WIDTHS:
        text = "\n".join(lines_at(columns, "peek", QUEUE, env=filled))
        assert "…\n" in text + "\n", text
        assert LONG.strip() not in " ".join(text.split())


def test_the_variable_says_the_width_instead(filled: dict[str, str]) -> None:
    """COLUMNS, as for every other program."""
    assert lines_at(200, "queues", env={**filled, "COLUMNS": "40"})[0].split() == ["queue", QUEUE]
    assert len(lines_at(200, "queues", env=filled)) == 2


def test_a_pipe_gets_everything(filled: dict[str, str]) -> None:
    """Without escape sequences."""
    done = typed("peek", QUEUE, env=filled)
    assert LONG.strip() in done.stdout
    assert "\x1b" not in done.stdout


def test_a_pipe_of_so_many_columns_gets_everything_within_them(filled: dict[str, str]) -> None:
    """COLUMNS bounds its lines, as on a terminal; what is cut there goes on in the next line here."""
    for command, names in TABLES.items():
        for columns in WIDTHS:
            done = typed(*command.split(), env={**filled, "COLUMNS": str(columns)})
            wide = [line for line in done.stdout.splitlines() if width_of(line) > columns]
            assert not wide, f"{command} at {columns}"
            missing = [name for name in names if name not in done.stdout]
            assert not missing, f"{command} at {columns}:\n{done.stdout}"
            if command.startswith("peek"):
                assert done.stdout.count("Kraków") == LONG.count("Kraków")


@pytest.mark.parametrize(
    ("env", "styled"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_style_is_for_terminals_that_want_it(
    filled: dict[str, str], env: dict[str, str], styled: bool
) -> None:
    """NO_COLOR and a dumb terminal get plain text."""
    with terminal(80, "queues", env={**filled, **env}) as made:
        assert (STYLE.search(made.end()) is not None) == styled


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8", "cp1252", "utf-8:strict"])
def test_any_encoding_shows_any_text(broker_server: BrokerServer, encoding: str) -> None:
    """What it has no letters for is escaped, in tables, in lists, and in what is consumed."""
    output(broker_server, "publish", "notes", stdin="ready\nKraków → 東京 \U0001f600\n")
    env = {"MINIBROKER_URL": broker_server.url, "PYTHONIOENCODING": encoding}
    codec = encoding.partition(":")[0]

    def run(*words: str) -> list[str]:
        done = subprocess.run(
            [*COMMAND, *words], capture_output=True, timeout=30, check=False, env={**CLEAN, **env}
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode(codec).splitlines()

    expected = "Kraków → 東京 \U0001f600".encode(codec, "backslashreplace").decode(codec)
    assert run("peek", "notes")[2].endswith(expected)
    assert json.loads(run("peek", "notes", "--json")[1])["body"] == "Kraków → 東京 \U0001f600"
    assert run("consume", "notes", "--ack", "--count", "2") == ["ready", expected]


def test_errors_and_questions_are_shown_in_any_encoding(broker_server: BrokerServer) -> None:
    """A name that is none, in the error and in the question before a purge."""
    env = {"MINIBROKER_URL": broker_server.url, "PYTHONIOENCODING": "ascii"}
    done = typed("queue", "show", "東京", env=env)
    assert (done.returncode, "\\u6771" in done.stderr) == (exits.REFUSED, True)
    done = typed("purge", "東京\x1b", stdin="n\n", env=env)
    assert (done.returncode, "\\u6771" in done.stderr) == (exits.REFUSED, True)
    assert "\x1b" not in done.stderr


# -- watching -----------------------------------------------------------------------------------


def test_watching_draws_over_what_it_drew_and_leaves_the_last(filled: dict[str, str]) -> None:
    """Nothing is cleared first, the terminal is put back, and Ctrl-C ends with 130."""
    with terminal(80, "stats", "--watch", "--interval", "100ms", env=filled) as made:
        at = made.read_until(b"\x1b[J", made.read_until(b"\x1b[J"))
        made.resize(40, 8)
        at = made.read_until(b"more lines\x1b[K\x1b[J", at)
        made.process.send_signal(signal.SIGINT)
        text = made.end()
        assert made.process.returncode == exits.INTERRUPTED
    live, _, rest = text.partition("\x1b[?1049l")
    assert "\x1b[2J" not in live
    assert [line for line in rest.splitlines() if QUEUE in line]
    assert not STYLE.sub("", rest).count("\x1b")


def test_watching_a_dumb_terminal_prints_one_table_after_the_other(filled: dict[str, str]) -> None:
    """Without a single escape sequence."""
    env = {**filled, "TERM": "dumb"}
    with terminal(80, "stats", QUEUE, "--watch", "--interval", "100ms", env=env) as made:
        made.read_until(QUEUE.encode(), made.read_until(QUEUE.encode()))
        made.process.send_signal(signal.SIGINT)
        assert "\x1b" not in made.end()
        assert made.process.returncode == exits.INTERRUPTED
