"""Commands as nobody meant them: odd bytes, closed streams, endless numbers, stubborn children."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typing_commands import CLEAN, output, refusal, typed_at, values

import minibroker
from minibrokerd.cli import executing
from support.broker import COMMAND, BrokerServer

QUEUE = "emails"


def test_looking_is_free_however_it_ends(broker_server: BrokerServer) -> None:
    """A closed pipe is the usual end of a look: nothing is charged, and nothing waits for a lease."""
    output(broker_server, "publish", QUEUE, stdin="\n".join(map(str, range(1_200))))
    look = f"{' '.join(COMMAND)} consume {QUEUE} --count 1000 --url {broker_server.url} | head -1"
    done = subprocess.run(
        ["bash", "-c", look], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
    states = values(broker_server, "stats", QUEUE)[0]["queues"][QUEUE]
    assert (states["ready"], states["held"], states["begun"]) == (1_200, 0, 0)
    assert len(output(broker_server, "consume", QUEUE)) == 1_000
    assert "at most 1,000" in refusal(broker_server, 2, "consume", QUEUE, "--count", "1001")


def test_headers_that_cannot_be_read_spoil_neither_peek_nor_consume(
    broker_server: BrokerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server takes any bytes as headers, so a foreign client may have sent any."""

    async def publish() -> None:
        async with minibroker.connect(broker_server.url) as broker:
            await broker.queue(QUEUE).publish(b"x", headers={"a": 1})

    monkeypatch.setattr("minibroker.session.wishes.encode_headers", lambda _: b"\xc1")
    asyncio.run(publish())
    (message,) = values(broker_server, "peek", QUEUE)
    assert (message["headers"], message["body"]) == (None, "x")
    assert values(broker_server, "consume", QUEUE, "--count", "1")[0]["headers"] is None


@pytest.mark.parametrize(
    ("command", "acked", "says"),
    [
        ("sleep 60 > /dev/null & true", 1, ""),
        ("kill -40 $$", 0, "signal 40"),
        ("echo lost >&2; exec 2>&-; exit 3", 0, "exit code 3: lost"),
    ],
)
def test_what_a_command_leaves_behind_is_its_own(
    broker_server: BrokerServer, command: str, acked: int, says: str
) -> None:
    """A child in the background that keeps its pipes, a signal without a name, a closed stream."""
    output(broker_server, "publish", QUEUE, "x")
    done = typed_at(broker_server, "consume", QUEUE, "--exec", command, "--count", "1")
    assert (done.returncode, done.stdout, says in done.stderr) == (0, "", True)
    assert "Traceback" not in done.stderr
    assert values(broker_server, "stats", QUEUE)[0]["queues"][QUEUE]["acked"] == acked


@pytest.mark.parametrize("stream", ["2>&-", "2> >(true)"])
def test_a_command_is_not_blamed_for_a_standard_error_that_nobody_reads(
    broker_server: BrokerServer, stream: str
) -> None:
    """What it wrote there is lost; what it did counts."""
    output(broker_server, "publish", QUEUE, "x")
    command = "sleep 0.3; echo progress >&2; echo more >&2"
    worker = f'"$@" consume {QUEUE} --count 1 --exec "{command}" --url {broker_server.url} {stream}'
    subprocess.run(["bash", "-c", worker, "bash", *COMMAND], timeout=30, check=True, env=CLEAN)
    assert values(broker_server, "stats", QUEUE)[0]["queues"][QUEUE]["acked"] == 1


async def test_a_command_that_ignores_the_signal_is_killed(
    broker_server: BrokerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would go on beside the next one that gets its message."""
    monkeypatch.setattr(executing, "KILL_S", 0.1)
    output(broker_server, "publish", QUEUE, "x")
    up = tmp_path / "up"
    os.mkfifo(up)
    executor = executing.Executor(f"trap '' TERM; echo > {up}; while :; do :; done", False)
    async with (
        minibroker.connect(broker_server.url) as broker,
        broker.queue(QUEUE).consume() as messages,
    ):
        running = asyncio.ensure_future(executor.handle(await anext(aiter(messages))))
        await asyncio.to_thread(up.read_text)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    (message,) = values(broker_server, "peek", QUEUE)
    assert (message["state"], sum(message["attempts"].values())) == ("ready", 0)


def test_a_body_cannot_steer_a_terminal_by_json(broker_server: BrokerServer) -> None:
    """JSON itself leaves the second half of the control characters as they are."""
    output(broker_server, "publish", QUEUE, "a\x9b31m\u202eb")
    (line,) = output(broker_server, "peek", QUEUE, "--json")
    assert "\\u009b31m\\u202e" in line
    assert json.loads(line)["body"] == "a\x9b31m\u202eb"


def test_a_body_cannot_steer_a_terminal(broker_server: BrokerServer) -> None:
    """Lines and tabs stay; a pipe gets the bytes as they are."""
    output(broker_server, "publish", QUEUE, "--as", "json", stdin='"a\\u001b[2J\\tb\\nc"')
    words = ("consume", QUEUE, "--count", "1", "--url", broker_server.url)
    ours, theirs = pty.openpty()
    subprocess.run([*COMMAND, *words], stdout=theirs, timeout=30, check=True, env=CLEAN)
    os.close(theirs)
    assert os.read(ours, 1_000) == b"a\\x1b[2J\tb\r\nc\r\n"
    os.close(ours)
    assert "\x1b[2J" in typed_at(broker_server, *words).stdout


def test_a_progress_bar_takes_names_as_they_are() -> None:
    """Square brackets are markup for the library that draws it."""
    ours, theirs = pty.openpty()
    code = "from minibrokerd.cli.printing import progress\nwith progress('[/x]', 1, prints=False) as f: f(1)"
    done = subprocess.run([sys.executable, "-c", code], stderr=theirs, timeout=30, check=False)
    os.close(theirs)
    assert done.returncode == 0
    os.close(ours)


@pytest.mark.parametrize("text", ["7", "1--5", "4294967296-1", "1-18446744073709551616", "1_0-1"])
def test_what_is_no_id_is_said_before_connecting(broker_server: BrokerServer, text: str) -> None:
    """A wrong command line ends with 2."""
    assert "no message id" in refusal(broker_server, 2, "dlq", "redrive", QUEUE, text)


def test_arguments_that_are_not_utf8_are_bytes_or_refused(broker_server: BrokerServer) -> None:
    """A body may be any bytes; names, keys and headers are text. Nothing hangs, nothing is a traceback."""
    output(broker_server, "publish", QUEUE, "\udcff")
    (line,) = output(broker_server, "consume", QUEUE, "--count", "1")
    assert line == "\\xff"
    assert "bad_name" in refusal(broker_server, 1, "publish", "\udcff", "x")
    assert "bad_value" in refusal(broker_server, 1, "publish", QUEUE, "x", "--key", "\udcff")
    text = refusal(broker_server, 2, "publish", QUEUE, "x", "--header", "a=\udcff")
    assert "not UTF-8" in text


@pytest.mark.parametrize("body", ['"\\ud800"', "9" * 30, "[" * 100_000])
def test_json_that_cannot_be_published_is_refused(broker_server: BrokerServer, body: str) -> None:
    """A lone surrogate, an integer of more than 64 bits, more brackets than Python reads."""
    text = refusal(broker_server, 2, "publish", QUEUE, "--as", "json", stdin=body)
    assert "--as json" in text


@pytest.mark.parametrize(
    "words",
    [
        ("publish", QUEUE, "x", "--delay", "nan"),
        ("bench", "--duration", "nan"),
        ("bench", "--rate", "inf"),
        ("serve", "--drain-timeout", "inf"),
        ("ping", "--wait", "inf"),
        ("peek", QUEUE, "--skip", str(2**64)),
    ],
)
def test_numbers_that_are_none_are_usage_errors(
    broker_server: BrokerServer, words: tuple[str, ...]
) -> None:
    """Python reads `nan` and `inf` as numbers."""
    assert words[-2] in refusal(broker_server, 2, *words)


def test_closed_streams_are_empty(broker_server: BrokerServer) -> None:
    """A supervisor may close them all."""
    for command in ("publish q", "stats", "queues"):
        bare = f'"$@" {command} --url {broker_server.url} <&- >&- 2>&-'
        subprocess.run(["bash", "-c", bare, "bash", *COMMAND], timeout=30, check=True, env=CLEAN)


def test_results_that_cannot_be_written_are_no_lost_connection(
    broker_server: BrokerServer,
) -> None:
    """Exit code 1, and the error of the system."""
    full = f'"$@" stats --json --url {broker_server.url} > /dev/full'
    done = subprocess.run(
        ["bash", "-c", full, "bash", *COMMAND], capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, b"No space left" in done.stderr) == (1, True)


def test_a_data_directory_may_have_any_name(tmp_path: Path) -> None:
    """Paths are bytes, and the banner shows this one."""
    data_dir = tmp_path / os.fsdecode(b"\xff")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ("serve", "--data-dir", str(data_dir), "--port", str(port), "--no-http")
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, env=CLEAN) as serving:
        assert serving.stdout is not None
        assert b"listening on" in serving.stdout.readline()
        assert b"/\xff" in serving.stdout.readline()
        serving.terminate()
    assert serving.returncode == 0
