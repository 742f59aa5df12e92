"""The commands that talk to a running broker, as a person or a script types them."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typing_commands import CLEAN, output, refusal, typed_at, values

import minibroker
from support.broker import COMMAND, BrokerServer
from support.processes import insists

QUEUE = "emails"


# -- publish and consume ------------------------------------------------------------------------


def test_publish_prints_the_id_and_how_safe_it_is(broker_server: BrokerServer) -> None:
    """One body as an argument."""
    assert output(broker_server, "publish", QUEUE, "hello") == ["1-0 sync"]


def test_each_line_of_standard_input_is_a_message(broker_server: BrokerServer) -> None:
    """And they come out in the same order, as the same bytes."""
    assert len(output(broker_server, "publish", QUEUE, stdin="one\ntwo ünï\n\nfour")) == 4
    lines = output(broker_server, "consume", QUEUE, "--count", "4", "--ack")
    assert lines == ["one", "two ünï", "", "four"]
    assert values(broker_server, "stats", QUEUE)[0]["queues"][QUEUE]["acked"] == 4


def test_a_file_is_one_message_or_one_for_each_line(
    broker_server: BrokerServer, tmp_path: Path
) -> None:
    """The bytes of the file, unchanged."""
    file = tmp_path / "body"
    file.write_bytes(b"a\nb\n")
    output(broker_server, "publish", QUEUE, "--file", str(file))
    output(broker_server, "publish", QUEUE, "--file", str(file), "--lines")
    bodies = [message["body"] for message in values(broker_server, "peek", QUEUE)]
    assert bodies == ["a\nb\n", "a", "b"]


def test_a_body_as_json_arrives_as_the_value_it_spells(broker_server: BrokerServer) -> None:
    """As if a Python program had published it, with key, headers and delay."""
    flags = ("--as", "json", "--key", "k", "--header", "trace=1=2", "--delay", "60")
    output(broker_server, "publish", QUEUE, '{"to": ["bob"]}', *flags)
    (message,) = values(broker_server, "peek", QUEUE)
    assert (message["body"], message["key"]) == ({"to": ["bob"]}, "k")
    assert (message["headers"], message["state"]) == ({"trace": "1=2"}, "delayed")


def test_what_is_no_json_is_named_and_what_came_before_is_kept(broker_server: BrokerServer) -> None:
    """The line number says where to go on."""
    done = typed_at(broker_server, "publish", QUEUE, "--as", "json", stdin="1\n{oops\n")
    assert done.returncode == 2
    assert "body 2 is not JSON" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("x", "--file", "pyproject.toml"), "not both"),
        (("--lines",), "--lines needs --file"),
        (("--file", "no/such/file"), "no/such/file"),
        (("x", "--header", "novalue"), "NAME=VALUE"),
        (("x", "--delay", "-1"), "--delay"),
        (("x", "--dely", "1"), "--delay"),
    ],
)
def test_a_wrong_publish_is_refused_before_anything_is_sent(
    broker_server: BrokerServer, words: tuple[str, ...], says: str
) -> None:
    """Exit code 2, and the flag that is meant."""
    assert says in refusal(broker_server, 2, "publish", QUEUE, *words)
    assert output(broker_server, "queues") == ["no queues yet"]


def test_without_ack_the_messages_go_back(broker_server: BrokerServer) -> None:
    """Looking is free: the same message comes first again, and no attempt was counted."""
    output(broker_server, "publish", QUEUE, "look")
    assert output(broker_server, "consume", QUEUE, "--count", "1") == ["look"]
    (message,) = values(broker_server, "consume", QUEUE, "--count", "1", "--ack")
    assert (message["body"], message["attempt"]) == ("look", 1)


# -- consume --exec -----------------------------------------------------------------------------

WORKER = """read body; echo "$body $MINIBROKER_ID $MINIBROKER_QUEUE $MINIBROKER_ATTEMPT $MINIBROKER_KEY"
case "$body" in bad) echo "no such address" >&2; exit 65;; odd) kill -9 $$;; esac"""


def test_a_command_settles_its_message_by_its_exit_code(broker_server: BrokerServer) -> None:
    """0 acks, 65 rejects with the last line of standard error, everything else fails the attempt."""
    output(broker_server, "queue", "set", QUEUE, "max_attempts=1")
    output(broker_server, "publish", QUEUE, "--key", "k", stdin="good\nbad\nodd\n")
    lines = output(broker_server, "consume", QUEUE, "--exec", WORKER, "--count", "3")
    assert lines[0] == "good 1-0 emails 1 k"
    counters = values(broker_server, "stats", QUEUE)[0]["queues"][QUEUE]
    assert (counters["acked"], counters["dead_lettered"]) == (1, 2)
    errors = [m["history"][-1]["error_text"] for m in values(broker_server, "dlq", "list", QUEUE)]
    assert errors == ["exit code 65: no such address", "signal SIGKILL"]


async def test_headers_that_fit_into_no_environment_are_no_endless_failure(
    broker_server: BrokerServer,
) -> None:
    """The message is rejected, with the reason: it would fail in the same way every time."""
    async with minibroker.connect(broker_server.url) as broker:
        await broker.queue(QUEUE).publish(b"x", headers={"large": "h" * 200_000})
    output(broker_server, "consume", QUEUE, "--exec", "true", "--count", "1")
    (message,) = values(broker_server, "dlq", "list", QUEUE)
    assert "fit into no environment" in message["history"][-1]["error_text"]


def test_commands_run_side_by_side(broker_server: BrokerServer, tmp_path: Path) -> None:
    """Each of two waits for the other: one at a time would never end."""
    output(broker_server, "publish", QUEUE, stdin="a\nb\n")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    meet = f"read x; case $x in a) echo hi > {pipe};; *) cat {pipe};; esac"
    flags = ("--exec", meet, "--count", "2", "--concurrency", "2")
    assert output(broker_server, "consume", QUEUE, *flags) == ["hi"]


def test_a_command_that_reads_nothing_is_no_error(broker_server: BrokerServer) -> None:
    """Not even when the body is larger than a pipe holds."""
    output(broker_server, "publish", QUEUE, "x" * 100_000)
    output(broker_server, "consume", QUEUE, "--exec", "true", "--count", "1")
    assert values(broker_server, "queues")[0]["messages"] == 0


class Worker:
    """A `consume --exec` that runs until a signal; its command says `working`, then waits for a file."""

    def __init__(self, server: BrokerServer, gate: Path) -> None:
        command = f"echo working; while [ ! -e {gate} ]; do :; done"
        self.process = subprocess.Popen(
            [*COMMAND, "consume", QUEUE, "--exec", command, "--url", server.url],
            stdout=subprocess.PIPE,
            text=True,
            env=CLEAN,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "working\n"

    def end(self) -> int:
        """Return the exit code."""
        self.process.communicate(timeout=30)
        return self.process.returncode


def test_a_signal_lets_the_command_finish(broker_server: BrokerServer, tmp_path: Path) -> None:
    """Nothing new begins; what runs is acked."""
    output(broker_server, "publish", QUEUE, stdin="a\nb\n")
    worker = Worker(broker_server, tmp_path / "gate")
    worker.process.send_signal(signal.SIGTERM)
    (tmp_path / "gate").touch()
    assert worker.end() == 0
    counters = values(broker_server, "stats", QUEUE)[0]["queues"][QUEUE]
    assert (counters["acked"], counters["ready"]) == (1, 1)


def test_a_signal_that_arrives_twice_is_one(broker_server: BrokerServer, tmp_path: Path) -> None:
    """`timeout` signals its child, and then the child's group."""
    output(broker_server, "publish", QUEUE, "a")
    worker = Worker(broker_server, tmp_path / "gate")
    # Two that are pending at once would be one: each must differ.
    worker.process.send_signal(signal.SIGTERM)
    worker.process.send_signal(signal.SIGINT)
    (tmp_path / "gate").touch()
    assert worker.end() == 0
    assert values(broker_server, "stats", QUEUE)[0]["queues"][QUEUE]["acked"] == 1


def test_a_second_signal_gives_the_message_back(
    broker_server: BrokerServer, tmp_path: Path
) -> None:
    """The command is ended, and its attempt is not counted."""
    output(broker_server, "publish", QUEUE, "a")
    worker = Worker(broker_server, tmp_path / "gate")
    insists(worker.process)
    assert worker.end() == 130
    (message,) = values(broker_server, "peek", QUEUE)
    assert (message["state"], sum(message["attempts"].values())) == ("ready", 0)


# -- queues and stats ---------------------------------------------------------------------------


def test_stats_is_a_table_for_people(broker_server: BrokerServer) -> None:
    """One line a queue, with the messages in each state."""
    assert output(broker_server, "stats") == ["no queues yet"]
    output(broker_server, "publish", QUEUE, "one")
    head, line = output(broker_server, "stats")
    assert dict(zip(head.split(), line.split(), strict=True))["ready"] == "1"


def test_stats_can_be_watched(broker_server: BrokerServer) -> None:
    """One value after the other, until the pipe is closed or Ctrl-C."""
    command = [
        *COMMAND,
        "stats",
        "--watch",
        "--interval",
        "0.1",
        "--json",
        "--url",
        broker_server.url,
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=CLEAN
    ) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith(b'{"queues"')
        assert watching.stdout.readline().startswith(b'{"queues"')
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=30)
    assert (watching.returncode, errors) == (130, b"")


def test_queues_counts_live_and_dead_messages(broker_server: BrokerServer) -> None:
    """A DLQ is a column of its source, not a row."""
    output(broker_server, "publish", QUEUE, stdin="a\nb\nc\n")
    output(broker_server, "consume", QUEUE, "--exec", "exit 65", "--count", "1")
    (row,) = values(broker_server, "queues")
    assert (row["queue"], row["messages"], row["ready"], row["dead"]) == (QUEUE, 2, 2, 1)


def test_the_messages_of_a_log_are_those_that_it_keeps(broker_server: BrokerServer) -> None:
    """They do not wait in it: it said 0."""
    output(broker_server, "queue", "set", QUEUE, "kind=log")
    output(broker_server, "publish", QUEUE, stdin="a\nb\nc\n")
    rows = {row["queue"]: row["messages"] for row in values(broker_server, "queues")}
    assert rows[QUEUE] == 3


def test_settings_are_shown_and_changed(broker_server: BrokerServer) -> None:
    """Those not named stay as they are."""
    changes = ("lease_ms=60000", "durability=lazy", "retry_cap_ms=1h30m", "retry_jitter_percent=5%")
    output(broker_server, "queue", "set", QUEUE, *changes)
    (settings,) = values(broker_server, "queue", "show", QUEUE)
    assert (settings["lease_ms"], settings["durability"], settings["max_attempts"]) == (
        60_000,
        "lazy",
        5,
    )
    assert (settings["retry_cap_ms"], settings["retry_jitter_percent"]) == (5_400_000, 5)
    lines = output(broker_server, "queue", "show", QUEUE)
    assert lines[2].split()[:4] == ["lease_ms", "1m", "chosen", "30s"]


def test_a_circuit_that_is_open_is_told_below_the_settings(broker_server: BrokerServer) -> None:
    """Since when, why, and when one message is tried; with --json there are the settings alone."""
    changes = ("circuit_failures_percent=50", "circuit_attempts=1")
    output(broker_server, "queue", "set", QUEUE, *changes)
    output(broker_server, "publish", QUEUE, "x")
    assert "circuit is" not in "\n".join(output(broker_server, "queue", "show", QUEUE))
    output(broker_server, "consume", QUEUE, "--exec", "exit 1", "--count", "1")
    last = output(broker_server, "queue", "show", QUEUE)[-1]
    assert last.startswith("the circuit is open since ")
    assert "UTC: 1 of 1 attempts failed" in last
    assert last.endswith("UTC one message is tried")
    (settings,) = values(broker_server, "queue", "show", QUEUE)
    assert settings["circuit_attempts"] == 1


def test_circuits_of_keys_are_told_and_listed(broker_server: BrokerServer) -> None:
    """How many below the settings; which, since when and why in the list of keys, until one is resumed."""
    changes = ("circuit_failures_percent=50", "circuit_attempts=1", "circuit_by=key")
    output(broker_server, "queue", "set", QUEUE, *changes)
    output(broker_server, "publish", QUEUE, "x", "--key", "alice")
    assert "open circuit" not in "\n".join(output(broker_server, "queue", "show", QUEUE))
    output(broker_server, "consume", QUEUE, "--exec", "exit 1", "--count", "1")
    last = output(broker_server, "queue", "show", QUEUE)[-1]
    assert last == f"keys with an open circuit: 1; `minibroker key list {QUEUE}` says which"
    row = output(broker_server, "key", "list", QUEUE)[1]
    assert row.startswith("alice       1  circuit open until 20")
    assert "1 of 1 attempts failed, the last one with " in row
    (told,) = values(broker_server, "key", "list", QUEUE)
    assert told["circuit"]["state"] == "open"
    assert told["circuit"]["since"] < told["circuit"]["until"]
    (told,) = values(broker_server, "key", "resume", QUEUE, "alice")
    assert told["circuit"] is None


@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        (2, ("lease=1",), "lease_ms"),
        (2, ("lease_ms",), "SETTING=VALUE"),
        (2, ("lasse_ms=5",), "did you mean lease_ms?"),
        (2, ("lease_ms=soon",), "is no duration"),
        (2, ("lease_ms=0.5ms",), "no whole number of milliseconds"),
        (2, ("max_attempts=5m",), "must be an integer"),
        (1, ("lease_ms=1",), "from 10 to"),
        (1, ("durability=maybe",), "sync, lazy, memory"),
    ],
)
def test_a_setting_that_is_not_allowed_changes_nothing(
    broker_server: BrokerServer, code: int, words: tuple[str, ...], says: str
) -> None:
    """The message lists what is allowed."""
    assert says in refusal(broker_server, code, "queue", "set", QUEUE, *words)
    assert output(broker_server, "queues") == ["no queues yet"]


def test_a_queue_with_messages_is_deleted_after_a_question(broker_server: BrokerServer) -> None:
    """With its dead messages; an empty one without a word, and one with consumers not at all."""
    output(broker_server, "publish", QUEUE, stdin="a\nb\n")
    output(broker_server, "consume", QUEUE, "--exec", "exit 65", "--count", "1")
    said = refusal(broker_server, 1, "queue", "delete", QUEUE)
    assert "Delete emails with its 2 messages" in said
    assert "cannot be brought back" in said
    refusal(broker_server, 1, "queue", "delete", QUEUE, stdin="n\n")
    lines = output(broker_server, "queue", "delete", QUEUE, stdin="y\n")
    assert lines == ["deleted emails, and 2 messages with it"]
    for flag in ("--yes", "--force"):  # as it was called in 0.1.0
        output(broker_server, "publish", QUEUE, "x")
        lines = output(broker_server, "queue", "delete", QUEUE, flag)
        assert lines == ["deleted emails, and 1 message with it"]
    output(broker_server, "queue", "set", QUEUE)
    assert output(broker_server, "queue", "delete", QUEUE) == [
        "deleted emails, and 0 messages with it"
    ]
    assert output(broker_server, "queues") == ["no queues yet"]


def test_a_purge_asks_first(broker_server: BrokerServer) -> None:
    """Without an answer nothing ends."""
    output(broker_server, "publish", QUEUE, stdin="a\nb\n")
    assert "cannot be brought back" in refusal(broker_server, 1, "purge", QUEUE)
    refusal(broker_server, 1, "purge", QUEUE, stdin="n\n")
    assert output(broker_server, "purge", QUEUE, "--yes") == ["purged 2"]


def test_peek_pages_through_more_than_one_answer_holds(broker_server: BrokerServer) -> None:
    """One answer has at most about 1 MiB."""
    output(broker_server, "publish", QUEUE, stdin="\n".join([f"{i}" * 150_000 for i in range(10)]))
    output(broker_server, "publish", QUEUE, "x\x1b[2Jy")
    lines = values(broker_server, "peek", QUEUE, "--count", "100")
    assert [line["id"] for line in lines] == [f"1-{number}" for number in range(11)]
    table = output(broker_server, "peek", QUEUE, "--skip", "9")
    assert len(table) == 3
    assert table[1].endswith(" " + "9" * 150_000)
    assert table[2].endswith("x\\x1b[2Jy")


# -- dead letters -------------------------------------------------------------------------------


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


async def test_one_dead_message_is_shown_with_its_history(broker_server: BrokerServer) -> None:
    """When, who, why."""
    await reject_all(broker_server, 2)
    text = "\n".join(output(broker_server, "dlq", "show", QUEUE, "1-1"))
    assert '{"number": 1}' in text
    assert "ValueError: no such\\x1b[31m address" in text
    (value,) = values(broker_server, "dlq", "show", QUEUE, "1-1")
    assert value["history"][0]["cause"] == "rejected"
    assert "no message 1-9" in refusal(broker_server, 1, "dlq", "show", QUEUE, "1-9")


async def test_an_id_that_is_not_dead_is_told(broker_server: BrokerServer) -> None:
    """The others are redriven all the same."""
    await reject_all(broker_server, 1)
    done = typed_at(broker_server, "dlq", "redrive", QUEUE, "1-0", "1-7")
    assert (done.returncode, done.stdout) == (1, "redriven 1\n")
    assert "1 of the 2 ids" in done.stderr


def test_a_queue_without_dead_messages_has_an_empty_dlq(broker_server: BrokerServer) -> None:
    """Its DLQ appears with the first dead message; nobody has to know that."""
    output(broker_server, "publish", QUEUE, "fine")
    assert output(broker_server, "dlq", "list", QUEUE) == [f"{QUEUE}.dlq is empty"]
    assert output(broker_server, "dlq", "redrive", QUEUE) == ["redriven 0"]


async def test_dead_messages_are_purged(broker_server: BrokerServer) -> None:
    """Only the dead ones."""
    await reject_all(broker_server, 2)
    output(broker_server, "publish", QUEUE, "alive")
    assert output(broker_server, "dlq", "purge", QUEUE, "--yes") == ["purged 2"]
    assert values(broker_server, "queues")[0]["messages"] == 1


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("stats", "nothing-here"), "unknown_queue"),
        (("queue", "show", "nothing-here"), "unknown_queue"),
        (("queue", "delete", "nothing-here"), "unknown_queue"),
        (("purge", "nothing-here", "--yes"), "unknown_queue"),
        (("peek", "nothing-here"), "unknown_queue"),
        (("publish", "emails.dlq", "x"), "bad_name"),
        (("publish", "no spaces", "x"), "bad_name"),
        (("queue", "set", "a/b", "lease_ms=60000"), "bad_name"),
        (("dlq", "list", "nothing-here"), "unknown_queue"),
        (("dlq", "redrive", "nothing-here"), "unknown_queue"),
    ],
)
def test_a_refusal_ends_with_1(
    broker_server: BrokerServer, words: tuple[str, ...], code: str
) -> None:
    """The text names the error code, for the table in protocol.md, and nothing was made."""
    assert code in refusal(broker_server, 1, *words)
    assert output(broker_server, "queues") == ["no queues yet"]


def test_a_body_that_is_too_large_is_refused_whole(
    broker_server: BrokerServer, tmp_path: Path
) -> None:
    """The text says what to do instead."""
    file = tmp_path / "large"
    file.write_bytes(bytes(1024 * 1024 + 1))
    text = refusal(broker_server, 1, "publish", QUEUE, "--file", str(file))
    assert "too_large" in text
    assert "publish a reference" in text


def test_json_for_programs_has_one_value_a_line(broker_server: BrokerServer) -> None:
    """Of every command that prints a result."""
    published: list[Any] = values(broker_server, "publish", QUEUE, "x")
    assert published == [{"id": "1-0", "durability": "sync"}]
    assert values(broker_server, "queue", "delete", QUEUE, "--yes") == [
        {"deleted": QUEUE, "purged": 1}
    ]
