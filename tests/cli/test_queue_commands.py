"""publish, consume, stats and dlq, as a person or a script types them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import Any

import pytest

import minibroker
from support.broker import BrokerServer

QUEUE = "emails"


def minibroker_command(
    server: BrokerServer, *words: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `minibroker WORDS --url URL` to its end."""
    command = [sys.executable, "-m", "minibrokerd", *words, "--url", server.url]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=30, check=False
    )


def output(server: BrokerServer, *words: str, stdin: str = "") -> list[str]:
    """Return the lines that a command printed; it must succeed."""
    done = minibroker_command(server, *words, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def values(server: BrokerServer, *words: str) -> list[Any]:
    """Return what a command printed with --json."""
    return [json.loads(line) for line in output(server, *words, "--json")]


def test_publish_prints_the_id_and_how_safe_it_is(broker_server: BrokerServer) -> None:
    """One body as an argument."""
    assert output(broker_server, "publish", QUEUE, "hello") == ["1-0 sync"]


def test_each_line_of_standard_input_is_a_message(broker_server: BrokerServer) -> None:
    """And they come out in the same order, as the same bytes."""
    assert len(output(broker_server, "publish", QUEUE, stdin="one\ntwo ünï\n\nfour")) == 4
    lines = output(broker_server, "consume", QUEUE, "--count", "4", "--ack")
    assert lines == ["one", "two ünï", "", "four"]
    assert values(broker_server, "stats", QUEUE)[0]["queues"][QUEUE]["acked"] == 4


def test_without_ack_the_messages_go_back(broker_server: BrokerServer) -> None:
    """Looking is free: the same message comes first again, and no attempt was counted."""
    output(broker_server, "publish", QUEUE, "look")
    assert output(broker_server, "consume", QUEUE, "--count", "1") == ["look"]
    (message,) = values(broker_server, "consume", QUEUE, "--count", "1", "--ack")
    assert (message["body"], message["attempt"]) == ("look", 1)


def test_stats_is_a_table_for_people(broker_server: BrokerServer) -> None:
    """One line a queue, with the messages in each state."""
    assert output(broker_server, "stats") == ["no queues yet"]
    output(broker_server, "publish", QUEUE, "one")
    head, line = output(broker_server, "stats")
    assert dict(zip(head.split(), line.split(), strict=True))["ready"] == "1"


async def reject_all(server: BrokerServer, count: int) -> None:
    """Publish `count` messages and have each rejected with an error."""
    async with minibroker.connect(server.url) as broker:
        queue = broker.queue(QUEUE)
        for number in range(count):
            await queue.publish({"number": number})
        async with queue.consume() as messages:
            async for message in messages:
                await message.reject(ValueError("no such\x1b[31m address"))
                count -= 1
                if not count:
                    break


async def test_dead_messages_are_listed_and_redriven(broker_server: BrokerServer) -> None:
    """By id or all; the escape character of an error text does not reach the terminal."""
    await reject_all(broker_server, 3)
    lines = output(broker_server, "dlq", "list", QUEUE)
    assert len(lines) == 4
    assert "ValueError: no such\\x1b[31m address" in lines[1]
    ids = [message["id"] for message in values(broker_server, "dlq", "list", f"{QUEUE}.dlq")]
    assert output(broker_server, "dlq", "redrive", QUEUE, ids[1]) == ["redriven 1"]
    assert values(broker_server, "consume", QUEUE, "--count", "1", "--ack")[0]["id"] == ids[1]
    assert values(broker_server, "dlq", "redrive", QUEUE) == [{"redriven": 2}]
    assert output(broker_server, "dlq", "list", QUEUE) == [f"{QUEUE}.dlq is empty"]


def test_an_unreachable_broker_ends_with_69() -> None:
    """The text names the address, the cause and the next step."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: certainly refused
        url = f"minibroker://127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "minibrokerd", "stats", "--url", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 69
    assert url in done.stderr
    assert "minibroker serve" in done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("stats", "nothing-here"), "unknown_queue"),
        (("publish", "emails.dlq", "x"), "bad_name"),
        (("dlq", "list", "nothing-here"), "unknown_queue"),
    ],
)
def test_a_refusal_ends_with_1(
    broker_server: BrokerServer, words: tuple[str, ...], code: str
) -> None:
    """The text names the error code, for the table in protocol.md."""
    done = minibroker_command(broker_server, *words)
    assert done.returncode == 1
    assert code in done.stderr


def test_what_is_no_id_is_said_before_connecting(broker_server: BrokerServer) -> None:
    """A wrong command line ends with 2."""
    assert minibroker_command(broker_server, "dlq", "redrive", QUEUE, "7").returncode == 2
