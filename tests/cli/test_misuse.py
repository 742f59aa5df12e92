"""Commands as nobody meant them: odd bytes, closed streams, endless numbers, stubborn children."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from pathlib import Path

import pytest
from typing_commands import CLEAN, COMMAND, output, refusal, typed_at, values

import minibroker
from minibrokerd.cli import executing
from support.broker import BrokerServer

QUEUE = "emails"


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


def test_a_data_directory_may_have_any_name(tmp_path: Path) -> None:
    """Paths are bytes, and the banner shows this one."""
    data_dir = tmp_path / os.fsdecode(b"\xff")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ("serve", "--data-dir", str(data_dir), "--port", str(port))
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, env=CLEAN) as serving:
        assert serving.stdout is not None
        assert b"listening on" in serving.stdout.readline()
        assert b"/\xff" in serving.stdout.readline()
        serving.terminate()
    assert serving.returncode == 0
