"""Commands on messages by their ids, on all that wait, and on lists of queues: what they did, what they left."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from test_commands import reject_all
from typing_commands import output, refusal, typed, typed_at, values

import minibroker
from minibroker import MessageId
from minibrokerd.process import exits
from support.broker import BrokerServer

QUEUE = "emails"


def ids(server: BrokerServer, *words: str) -> list[str]:
    """Return the ids that a list shows."""
    return [message["id"] for message in values(server, *words)]


def test_messages_are_shown_by_id_whatever_their_state(broker_server: BrokerServer) -> None:
    """In the order asked for; one that is not there ends it with 1, and the others are shown."""
    output(broker_server, "publish", QUEUE, stdin="a\nb\n")
    output(broker_server, "publish", QUEUE, "later", "--delay", "1h", "--key", "k")
    found = values(broker_server, "message", "show", QUEUE, "1-2", "1-0")
    assert [(each["body"], each["state"]) for each in found] == [
        ("later", "delayed"),
        ("a", "ready"),
    ]
    done = typed_at(broker_server, "message", "show", QUEUE, "1-1", "1-77")
    assert (done.returncode, "1-77" in done.stderr) == (exits.REFUSED, True)
    assert "state      ready" in done.stdout
    assert "encoding   bytes" in done.stdout  # looks like the value it spells
    assert "no message id" in refusal(broker_server, exits.USAGE, "message", "show", QUEUE, "x")


async def test_messages_are_deleted_and_moved_and_what_is_left_is_named(
    broker_server: BrokerServer,
) -> None:
    """A worker's message stays with it; an id that is not there is told."""
    async with minibroker.connect(broker_server.url) as broker:
        queue = broker.queue(QUEUE)
        await queue.publish_many([b"0", b"1", b"2", b"3"])
        (held,) = await queue.receive()

        def run() -> None:
            words = ("message", "delete", QUEUE, "1-0", "1-1", "1-9")
            assert "nothing was done" in refusal(broker_server, exits.REFUSED, *words, stdin="n\n")
            done = typed_at(broker_server, *words, "--yes")
            assert (done.returncode, done.stdout) == (exits.REFUSED, "deleted 1\n")
            assert "1-0 is begun, 1 id not in emails" in done.stderr
            assert output(broker_server, "message", "move", QUEUE, "1-2", "--to", "b") == [
                "moved 1"
            ]
            assert ids(broker_server, "peek", "b") == ["1-2"]
            moved = values(broker_server, "queue", "move", QUEUE, "--to", "b")
            assert moved == [{"moved": 1, "left": {"begun": 1}}]
            lines = output(broker_server, "queue", "move", QUEUE, "--to", "b")
            assert lines == ["moved 0; left in emails: 1 begun"]

        await asyncio.to_thread(run)
        await held.ack(confirmed=True)


def test_a_list_goes_on_behind_its_last_message(broker_server: BrokerServer) -> None:
    """The cursor stands on standard error; together the pages are the whole queue."""
    output(broker_server, "publish", QUEUE, stdin="\n".join("abcde"))
    seen: list[str] = []
    cursor: tuple[str, ...] = ()
    for _ in range(3):
        done = typed_at(broker_server, "peek", QUEUE, "--count", "2", *cursor)
        seen += [line.split()[0] for line in done.stdout.splitlines()[1:]]
        cursor = tuple(done.stderr.split()[-2:])
    assert seen == [f"1-{number}" for number in range(5)]
    assert cursor == ()
    assert "no cursor" in refusal(broker_server, exits.USAGE, "peek", QUEUE, "--after", "xyz")
    assert ids(broker_server, "peek", QUEUE, "--state", "begun") == []
    assert len(ids(broker_server, "peek", QUEUE, "--state", "ready")) == 5


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("list",), []),
        (("groups",), []),
        (("status",), [{}]),
        (("stop",), [{}]),
        (("redrive",), [{"redriven": 0}]),
        (("purge", "--yes"), [{"purged": 0}]),
    ],
)
def test_a_queue_without_a_dlq_has_an_empty_one(
    broker_server: BrokerServer, words: tuple[str, ...], answer: list[Any]
) -> None:
    """For every command of `dlq`; a queue that is not there has none."""
    output(broker_server, "publish", QUEUE, "fine")
    command, *flags = words
    for name in (QUEUE, f"{QUEUE}.dlq"):
        assert values(broker_server, "dlq", command, name, *flags) == answer
    assert "unknown_queue" in refusal(broker_server, 1, "dlq", command, "nope", *flags)


def test_a_dead_message_of_a_queue_without_a_dlq_is_not_there(broker_server: BrokerServer) -> None:
    """With the exit code of every other id that is not there."""
    output(broker_server, "publish", QUEUE, "fine")
    text = refusal(broker_server, exits.REFUSED, "dlq", "show", QUEUE, "1-0")
    assert "emails.dlq" in text
    assert "unknown_queue" in refusal(broker_server, exits.REFUSED, "dlq", "show", "nope", "1-0")


async def test_dead_messages_are_grouped_and_a_group_goes_back(broker_server: BrokerServer) -> None:
    """By name, or by any other condition; all that are given must hold."""
    await reject_all(broker_server, 3)
    (group,) = values(broker_server, "dlq", "groups", QUEUE)
    assert (group["count"], group["error_class"], group["example"]) == (3, "ValueError", "1-0")
    (line,) = output(broker_server, "dlq", "groups", QUEUE)[1:]
    assert "ValueError: no such\\x1b[#m address" in line
    for condition in ("class=KeyError", "older=1h", "key=k", "group=0"):
        assert values(broker_server, "dlq", "groups", QUEUE, "--where", condition) == []
    both = ("--where", f"group={group['group']}", "--where", "text=no such")
    assert output(broker_server, "dlq", "redrive", QUEUE, *both) == ["redriven 3"]
    assert output(broker_server, "dlq", "groups", QUEUE) == ["emails.dlq is empty"]
    no_such = output(broker_server, "dlq", "groups", QUEUE, "--where", "key=k")
    assert no_such == ["no such message is in emails.dlq"]


async def test_a_canary_goes_first_and_says_why_the_others_stay(
    broker_server: BrokerServer,
) -> None:
    """The command waits until it has ended; without waiting it is looked at, and stopped."""
    await reject_all(broker_server, 60)
    words = ("dlq", "redrive", QUEUE, "--where", "class=ValueError", "--canary", "2")
    async with minibroker.connect(broker_server.url) as broker:
        typing = asyncio.create_task(asyncio.to_thread(typed_at, broker_server, *words))
        for message in await broker.queue(QUEUE).receive(2, wait=30):
            await message.reject(ValueError("still no address"))
        done = await typing
    assert (done.returncode, done.stdout.split(";")[0]) == (
        exits.REFUSED, f"{QUEUE}: stopped, redriven 2"
    )  # fmt: skip
    assert "one of the 2 sent first, died again: ValueError" in done.stderr
    output(broker_server, "dlq", "redrive", QUEUE, "--rate", "1", "--detach")
    (state,) = values(broker_server, "dlq", "status", QUEUE)
    assert (state["state"], state["rate"], state["canary"]) == ("sending", 1, 0)
    assert "limit_reached" in refusal(broker_server, 1, "dlq", "redrive", QUEUE, "--canary", "1")
    (line,) = output(broker_server, "dlq", "stop", QUEUE)
    assert line.startswith(f"{QUEUE}: stopped, redriven")


async def test_a_dead_message_is_changed_and_published_again(broker_server: BrokerServer) -> None:
    """The original stays; what is not given is as in it."""
    await reject_all(broker_server, 1)
    words = ("dlq", "requeue", QUEUE, "1-0", '{"number": 2}', "--as", "json", "--key", "k")
    assert output(broker_server, *words) == ["1-1 sync"]
    assert output(broker_server, "dlq", "requeue", QUEUE, "1-0", "--to", "other") == ["3-0 sync"]
    (new,) = values(broker_server, "peek", QUEUE)
    assert (new["body"], new["key"]) == ({"number": 2}, "k")
    assert new["headers"] == {"minibroker-original": "1-0"}
    assert values(broker_server, "peek", "other")[0]["body"] == {"number": 0}
    assert values(broker_server, "dlq", "list", QUEUE)[0]["id"] == "1-0"
    refusal(broker_server, 2, "dlq", "requeue", QUEUE, "1-0", "{", "--as", "json")
    assert "no message 1-7" in refusal(broker_server, 1, "dlq", "requeue", QUEUE, "1-7")


@pytest.mark.parametrize(
    "condition", ["class", "class=", "older=soon", "colour=red", f"key={'k' * 300}"]
)
def test_a_condition_that_is_none_is_refused(broker_server: BrokerServer, condition: str) -> None:
    refusal(broker_server, 2, "dlq", "redrive", QUEUE, "--where", condition)
    refusal(broker_server, 2, "dlq", "groups", QUEUE, "--where", condition)


async def test_a_redrive_tells_what_it_left(broker_server: BrokerServer) -> None:
    """What a consumer of the dead-letter queue has."""
    await reject_all(broker_server, 3)
    async with minibroker.connect(broker_server.url) as broker:
        (dead,) = await broker.queue(f"{QUEUE}.dlq").receive()
        lines = await asyncio.to_thread(output, broker_server, "dlq", "redrive", QUEUE)
        assert lines == ["redriven 2; left in emails.dlq: 1 begun"]
        await dead.release()


async def test_a_dead_message_names_its_last_error_for_programs(
    broker_server: BrokerServer,
) -> None:
    """Class, text and cause, without a walk through the history."""
    await reject_all(broker_server, 1)
    (dead,) = await asyncio.to_thread(values, broker_server, "dlq", "list", QUEUE)
    assert dead["error_class"] == "ValueError"
    assert dead["error_text"].startswith("no such")
    assert dead["cause"] == dead["history"][-1]["cause"]


async def test_terms_of_a_message_are_shown(broker_server: BrokerServer) -> None:
    """Attempts and lease that it brought with it, for people and for programs."""
    async with minibroker.connect(broker_server.url) as broker:
        await broker.queue(QUEUE).publish(b"plain")
        await broker.queue(QUEUE).publish(b"own", max_attempts=7, lease=120, priority=9)
    plain, own = await asyncio.to_thread(values, broker_server, "peek", QUEUE)
    assert (plain["priority"], own["priority"]) == (0, 9)
    assert (plain["max_attempts"], plain["lease_ms"]) == (None, None)
    assert (own["max_attempts"], own["lease_ms"]) == (7, 120_000)
    lines = await asyncio.to_thread(output, broker_server, "message", "show", QUEUE, "1-1")
    assert "at most    7 attempts, its own" in lines
    assert "lease      2m, its own" in lines
    assert "priority   9" in lines


# -- queues -------------------------------------------------------------------------------------


def test_queues_are_chosen_by_pattern_and_sorted(broker_server: BrokerServer) -> None:
    """Largest first; the sum stands below."""
    for name, count in (("mail", 1), ("mail-low", 3), ("video", 2)):
        output(broker_server, "publish", name, stdin="x\n" * count)
    shown = values(broker_server, "queues", "mail*", "--sort", "messages")
    assert [row["queue"] for row in shown] == ["mail-low", "mail"]
    lines = output(broker_server, "stats", "--sort", "ready", "--count", "2")
    assert [line.split()[0] for line in lines] == ["queue", "mail-low", "video", "(total)"]
    assert lines[3].split()[1] == "6"
    (value,) = values(broker_server, "stats", "mail*")
    assert (list(value["queues"]), value["total"]["ready"]) == (["mail", "mail-low"], 4)
    assert output(broker_server, "stats", "nope*") == ["no queue is called nope*"]
    assert "unknown_queue" in refusal(broker_server, exits.REFUSED, "stats", "nope")


def test_stats_has_what_the_alarms_need(broker_server: BrokerServer) -> None:
    """Each counter that docs/operating.md names is a column."""
    output(broker_server, "publish", QUEUE, "x")
    (head, *_) = output(broker_server, "stats")
    needed = {
        "ready",
        "begun",
        "dead_lettered",
        "worker_lost",
        "expired",
        "lost_settlements",
        "damaged",
    }
    assert needed <= set(head.split())


# -- completion ---------------------------------------------------------------------------------


def completed(url: str, *words: str) -> list[str]:
    """Return what bash would offer for the last of `words`."""
    asked = {
        "_MINIBROKER_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("minibroker", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = typed(env={**asked, "MINIBROKER_URL": url})
    assert (done.returncode, done.stderr) == (0, "")
    return [line.removeprefix("plain,") for line in done.stdout.splitlines() if line]


async def test_queues_ids_and_settings_are_completed(broker_server: BrokerServer) -> None:
    """As the server has them now."""
    await reject_all(broker_server, 1)
    output(broker_server, "publish", "other", stdin="a\nb\n")
    url = broker_server.url
    assert completed(url, "peek", "") == ["emails", "emails.dlq", "other"]
    assert completed(url, "consume", "ot") == ["other"]
    assert completed(url, "dlq", "show", "") == ["emails"]
    assert completed(url, "dlq", "show", "emails", "") == ["1-0"]
    assert completed(url, "message", "delete", "other", "3-0", "3-") == ["3-0", "3-1"]
    assert completed(url, "queue", "set", "other", "retry_c") == ["retry_cap_ms="]
    values_of = ["durability=lazy", "durability=memory", "durability=sync"]
    assert completed(url, "queue", "set", "other", "durability=") == values_of
    assert completed(url, "queue", "set", "other", "durability", "=", "s") == ["sync"]


@pytest.mark.parametrize("url", ["minibroker://127.0.0.1:1", "nonsense"])
def test_completion_is_silent_without_a_server(url: str) -> None:
    """Nothing is offered, and nothing is said."""
    assert completed(url, "peek", "") == []


async def test_a_result_that_there_is_none_of_is_told_by_why(broker_server: BrokerServer) -> None:
    """Ended how, or never there: 1; waits or runs still, and where: 4."""
    async with minibroker.connect(broker_server.url, name="worker 7") as broker:
        queue = broker.queue(QUEUE)
        await queue.publish_many([b"0", b"1", b"2"])
        acked, running = await queue.receive(2)
        await acked.ack(confirmed=True)
        await queue.cancel([MessageId(1, 2)])

        def run() -> None:
            for id, says, code in (
                ("1-0", ("message 1-0 has ended: worker 7 acked it at 20", "kept no results"), 1),
                ("1-2", ("message 1-2 has ended: worker 7 cancelled it at 20",), 1),
                ("1-77", ("no message has had this id: 1-77",), 1),
                ("9-0", ("no message has had this id: 9-0",), 1),
                ("1-1", ("message 1-1 of emails is BEGUN: worker 7 works on it since",), 4),
            ):
                for more in ((), ("--wait", "50ms")):
                    text = refusal(broker_server, code, "result", id, QUEUE, *more)
                    assert all(each in text for each in says), text
            for id, error in (
                ("1-0", "message_failed"), ("1-77", "unknown_message"), ("1-1", "timeout")
            ):  # fmt: skip
                done = typed_at(broker_server, "result", id, "--json")
                assert json.loads(done.stderr)["error"]["code"] == error

        await asyncio.to_thread(run)
        await running.complete("done", kept=60, confirmed=True)
    assert output(broker_server, "result", "1-1") == ["done"]


def test_a_result_is_waited_for_only_while_something_may_come(broker_server: BrokerServer) -> None:
    """An hour is nothing for a message that nobody ever published."""
    assert "no message has" in refusal(broker_server, 1, "result", "7-7", "--wait", "1h")
