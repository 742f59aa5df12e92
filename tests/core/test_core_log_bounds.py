"""protocol.md 5.20: what a retained log refuses; what settings, deletes, purges and lost files do to it."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import World
from test_core_logs import archives, ascend, asked, bodies, group, make_log

from minibroker.contract import limits
from minibroker.contract.settings import SETTINGS
from minibrokerd.core.verbs import archiving


def values_of(name: str) -> list[int | str]:
    """Return values of a setting that are not its default, small and large ones."""
    row = SETTINGS[name]
    some: list[int | str] = [*row.choices] or [row.low, row.low + 1, row.high]
    return [value for value in some if value != row.default]


CHOSEN = [(name, value) for name in SETTINGS if name != "kind" for value in values_of(name)]
BY_POLICY = [
    (
        name,
        max(value, 1_000)
        if name == "compaction_ms" and isinstance(value, int) and value
        else value,
    )
    for name, value in CHOSEN
    if name != "durability"
]


def lives(world: World, client: Client) -> None:
    """A backlog of a log with slow files comes to them in order, over a crash and whatever time passes."""
    world.files.lag = True
    for number in range(9):
        answer = client.publish("log", b"%d" % number, key=("", "a", "b")[number % 3])
        assert answer["op"] == "confirm", answer
    client.publish("log", b"9", b"10", keys=["a", "a"])
    world.advance(5_000)
    world.restart(clean=False)
    world.advance(5_000)
    world.run_jobs()
    client = world.hello()
    client.publish("log", b"11", key="a")
    world.advance(5_000)
    world.files.lag = False
    world.files.catch_up()
    world.run_jobs()
    ascend(world)
    assert bodies(client) == [b"%d" % number for number in range(12)]
    assert world.queue("log").count() == 0
    world.check()


@pytest.mark.parametrize(("name", "value"), CHOSEN)
def test_a_setting_is_refused_or_takes_nothing_from_a_log(name: str, value: int | str) -> None:
    """Each setting of the table, chosen for a log."""
    world = World()
    client = world.hello()
    answer = client.set("log", kind="log", **{name: value})
    if answer["op"] == "error":
        assert answer["code"] == "bad_value"
        assert not world.store.retained.logs
        return
    lives(world, client)


@pytest.mark.parametrize(("name", "value"), BY_POLICY)
def test_a_policy_takes_nothing_from_a_log(name: str, value: int | str) -> None:
    """Each setting of the table, by a policy that fits every name."""
    world = World()
    client = world.hello()
    make_log(client)
    answer = client.request(
        {
            "op": "policy_set",
            "name": "all",
            "pattern": "*",
            "settings": {name: value},
            "priority": 0,
        }
    )
    if answer is None:
        world.run_jobs()
        answer = client.answer(request=client.requests)
    assert answer["op"] == "reply", answer
    lives(world, client)


@pytest.mark.parametrize(
    "fields",
    [
        {"delay_ms": 1},
        {"ttl_ms": 1},
        {"priority": 1},
        {"delays": [1]},
        {"uniques": ["u"]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_log_has_one_order(fields: dict[str, Any]) -> None:
    """What would run, end or go before others is refused, and nothing is stored."""
    world = World()
    client = world.hello()
    make_log(client)
    assert client.publish("log", b"a", **fields)["code"] == "bad_value"
    assert world.queue("log").next_sequence == 0


def test_nobody_publishes_to_a_group_or_consumes_a_log() -> None:
    """Each is told what to use."""
    world = World()
    client = world.hello()
    make_log(client)
    queue = group(client)
    assert client.publish(queue, b"a")["code"] == "bad_name"
    assert client.publish("log@none", b"a")["code"] == "unknown_queue"
    assert client.consume("log")["code"] == "bad_value"
    assert client.receive("log")["code"] == "bad_value"
    assert client.receive("log@none")["code"] == "unknown_queue"
    assert client.set("log", kind="work")["code"] == "bad_value"
    assert client.set(queue, kind="log")["code"] == "bad_value"
    assert client.set(queue, durability="memory")["code"] == "bad_value"
    client.publish("work", b"a")
    assert client.set("work", kind="log")["code"] == "bad_value"
    for op in ("log_show", "log_read"):
        assert client.request({"op": op, "queue": "work"})["code"] == "bad_value"
        assert client.request({"op": op, "queue": "none"})["code"] == "unknown_queue"
    runs = {"op": "move", "queue": queue, "target": "work", "runs": 0, "count": 1}
    assert client.request(runs)["code"] == "bad_value"


def test_a_backlog_of_the_files_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the files are far behind a publish is refused, and taken again when they are not."""
    monkeypatch.setattr("minibrokerd.core.model.retained.MOST_BACKLOG_BYTES", 1_000)
    world = World()
    client = world.hello()
    make_log(client)
    world.files.lag = True
    answers = [client.publish("log", b"x" * 300) for _ in range(6)]
    assert [answer.get("code") for answer in answers][-1] == "busy"
    world.files.lag = False
    world.files.catch_up()
    assert client.publish("log", b"x")["op"] == "confirm"


# -- what ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [False, True])
def test_a_log_is_deleted_while_it_is_archived_and_fed(lag: bool) -> None:
    """Log, groups and files end; what comes back from the files later means nothing."""
    world = World()
    client = world.hello()
    make_log(client)
    queue = group(client)
    client.publish("log", b"a")
    world.files.lag = lag
    client.publish("log", b"b")
    client.receive(queue)
    assert client.delete("log")["code"] == "queue_in_use"
    assert client.delete("log", force=True)["op"] == "reply"
    world.files.lag = False
    world.files.catch_up()
    world.files.retry()
    assert not {"log", queue} & world.store.queues.keys()
    assert not world.store.retained.logs
    assert not world.store.retained.full
    assert not world.files.kept()
    make_log(client)
    assert bodies(client) == []
    client.publish("log", b"c")
    assert bodies(client) == [b"c"]
    world.restart(clean=False)
    assert bodies(world.hello()) == [b"c"]
    world.check()


def test_a_crash_before_the_delete_is_safe_keeps_the_files() -> None:
    """The files go behind the sync of the record, not before."""
    world = World()
    client = world.hello()
    make_log(client)
    client.publish("log", b"a")
    world.auto_sync = False
    client.delete("log", force=True)
    world.files.catch_up()
    world.restart(clean=False)
    world.auto_sync = True
    assert bodies(world.hello()) == [b"a"]


def test_a_crash_behind_the_sync_of_a_delete_leaves_no_files() -> None:
    """A start deletes what is of no log any more."""
    world = World()
    client = world.hello()
    make_log(client)
    client.publish("log", b"a")
    world.files.lag = True
    client.delete("log", force=True)
    assert world.files.kept()
    world.restart(clean=False)
    assert not world.files.kept()


@pytest.mark.parametrize("where", ["log.dlq", "log@a.dlq", "log@b", "log@b.dlq"])
def test_a_delete_is_all_or_nothing(where: str) -> None:
    """Somebody consumes one of those that would go: none does."""
    world = World()
    client = world.hello()
    make_log(client)
    group(client, "a"), group(client, "b")
    client.publish("log", b"a")
    names = set(client.queue_names())
    client.consume(where, prefetch=1)
    assert client.delete("log", force=True)["code"] == "queue_in_use"
    assert set(client.queue_names()) >= names
    assert bodies(client) == [b"a"]


@pytest.mark.parametrize("crash", ["no", "before", "behind"])
def test_a_purge_takes_all_that_a_log_has(crash: str) -> None:
    """What is in the files, too; when it was confirmed it stays so, whenever the files do it."""
    world = World()
    client = world.hello()
    make_log(client)
    queue = group(client)
    client.publish("log", b"a", b"b")
    world.files.lag = True
    client.publish("log", b"c")
    answer = client.purge("log")
    assert answer["value"]["purged"] == 3
    if crash != "before":
        world.files.lag = False
        world.files.catch_up()
    if crash != "no":
        world.restart(clean=False)
        client = world.hello()
    world.files.lag = False
    world.files.catch_up()
    assert bodies(client) == []
    client.publish("log", b"d")
    assert bodies(client) == [b"d"]
    assert [m.body for m in client.receive_all(queue)] == [b"a", b"b", b"d"]
    world.check()


def test_a_purge_while_it_is_archived_ends_what_is_on_its_way() -> None:
    """What had come to the files by then is trimmed; the next is archived."""
    world = World()
    client = world.hello()
    make_log(client)
    world.files.lag = True
    client.publish("log", b"a")
    client.publish("log", b"b")
    client.purge("log")
    client.publish("log", b"c")
    world.files.lag = False
    world.files.catch_up()
    assert bodies(client) == [b"c"]
    assert world.queue("log").count() == 0
    world.check()


def test_a_pause_of_a_group_holds_its_feed() -> None:
    """A paused group gets nothing more from its log, and all when it goes on; the log is archived."""
    world = World()
    client = world.hello()
    make_log(client)
    queue = group(client)
    client.request({"op": "pause", "queue": queue})
    client.publish("log", b"a")
    assert world.queue(queue).count() == 0
    assert bodies(client) == [b"a"]
    client.request({"op": "unpause", "queue": queue})
    assert [m.body for m in client.receive_all(queue)] == [b"a"]


@pytest.mark.parametrize("what", ["gone", "shorter"])
def test_files_that_lost_what_was_acknowledged_are_told(what: str) -> None:
    """A start finds less than was archived: that is damage, and no end of the log; a purge is none."""
    world = World()
    client = world.hello()
    make_log(client)
    queue = group(client)
    for number in range(5):
        client.publish("log", b"%d" % number)
    files: Any = world.files.retained.get(1)
    if what == "gone":
        world.files.retained.delete(1)
    else:
        del files._frames[3:]
    world.notes.clear()
    world.restart(clean=False)
    (note,) = [note for note in world.notes if note.event == "log_damaged"]
    assert note.fields == {"queue": "log", "messages": 5 if what == "gone" else 2, "before": 5}
    client = world.hello()
    client.publish("log", b"5")
    assert bodies(client)[-1] == b"5"
    assert [int(m.body) for m in client.receive_all(queue)] == [0, 1, 2, 3, 4, 5]
    client.purge("log")
    world.files.retained.delete(1)
    world.notes.clear()
    world.restart(clean=False)
    assert not world.notes
    world.check()


# -- seeks ------------------------------------------------------------------------------------------


def test_a_seek_ends_what_was_fetched_before_it() -> None:
    """What the files bring for the position of before is not fed."""
    world = World()
    client = world.hello()
    make_log(client)
    for number in range(4):
        client.publish("log", b"%d" % number)
    world.files.lag = True
    queue = group(client)
    assert (
        asked(client, "log_group_seek", queue="log", group="g", start="offset", at=2)["seeks"] == 1
    )
    world.files.lag = False
    world.files.catch_up()
    got = client.receive_all(queue)
    assert [m.body for m in got] == [b"2", b"3"]
    seek = asked(client, "log_group_seek", queue="log", group="g", start="first")
    assert seek["purged"] == 2
    assert client.settle("ack", *got)["lost_runs"]
    again = client.receive_all(queue)
    assert [m.body for m in again] == [b"0", b"1", b"2", b"3"]
    assert not {m.id for m in got} & {m.id for m in again}
    client.settle("ack", *again)
    world.check()


def test_a_seek_back_while_it_is_fetched_skips_nothing() -> None:
    """What the files bring stands behind the new position: it is not fed, and what is before it comes first."""
    world = World()
    client = world.hello()
    make_log(client)
    for number in range(4):
        client.publish("log", b"%d" % number)
    world.files.lag = True
    queue = group(client, start="offset", at=2)
    asked(client, "log_group_seek", queue="log", group="g", start="first")
    world.files.work()
    assert world.queue(queue).count() == 0
    world.files.lag = False
    world.files.catch_up()
    assert [m.body for m in client.receive_all(queue)] == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("crash", [False, True])
def test_a_seek_to_a_time(crash: bool) -> None:
    """It is kept over a crash until the files have looked for it."""
    world = World()
    client = world.hello()
    make_log(client)
    client.publish("log", b"0")
    world.advance(10_000)
    since = world.unix_ms
    client.publish("log", b"1")
    queue = group(client)
    world.files.lag = True
    asked(client, "log_group_seek", queue="log", group="g", start="time", at=since)
    if crash:
        world.restart(clean=False)
        client = world.hello()
    world.files.lag = False
    world.files.catch_up()
    assert [m.body for m in client.receive_all(queue)] == [b"1"]


def test_generations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one still works, with its largest ids; one more is refused."""
    world = World()
    client = world.hello()
    make_log(client)
    queue = group(client)
    client.publish("log", b"a")
    world.queue(queue).group.retained.generation = limits.MAX_SEEKS - 2  # type: ignore[union-attr]
    assert asked(client, "log_group_seek", queue="log", group="g")["seeks"] == limits.MAX_SEEKS - 1
    (got,) = client.receive_all(queue)
    client.settle("ack", got)
    client.publish("log", b"b")
    world.restart(clean=False)
    client = world.hello()
    (got,) = client.receive_all(queue)
    assert got.body == b"b"
    assert got.sequence < 2**64
    client.settle("nack", got)
    assert asked(client, "log_group_seek", queue="log", group="g")["code"] == "limit_reached"
    world.check()


# -- what the server shows and does to messages of logs ---------------------------------------------


@pytest.mark.parametrize("lag", [False, True])
def test_requests_about_messages_know_logs(lag: bool) -> None:
    """Those that look at a message, or change one, meet deliveries of nobody, and groups, without a fault."""
    world = World()
    client = world.hello()
    make_log(client)
    queue = group(client)
    world.files.lag = lag
    client.publish("log", b"a", b"b", key="k")
    id = 1, 0
    assert client.explain(id, "log")
    assert client.explain(id)
    client.peek("log")
    client.stats("log")
    client.cancel_messages("log", id)
    client.retime("log", (1, 1), 1_000)
    client.redrive("log.dlq", count=1)
    world.files.lag = False
    world.files.catch_up()
    world.advance(5_000)
    world.files.retry()
    (message, *_) = client.receive_all(queue)
    client.explain(message.id, queue)
    client.retime(queue, message.id, 1_000)
    client.peek(queue)
    client.settle("reject", message)
    client.explain(message.id, queue + ".dlq")
    client.redrive(queue + ".dlq", count=1)
    world.run_jobs()
    client.cancel_messages(queue, message.id)
    world.check()
    world.restart(clean=False)
    world.check()


# -- how much one apply does -------------------------------------------------------------------------


def test_what_came_during_a_sync_of_the_files_is_appended_together() -> None:
    """Publishes of many messages, be they more than as many items as an apply looks at."""
    world = World()
    client = world.hello()
    make_log(client)
    world.files.lag = True
    for _ in range(8):
        client.publish("log", *[b"x"] * 500)
    while world.files.waiting:
        world.files.work()
    appended = [sum(piece.count for piece in work.pieces) for work in archives(world)]
    assert appended == [500, 3_500]


def test_a_stall_of_the_files_ends_in_steps() -> None:
    """A backlog of very many publishes of one message, each with a key, is archived some at a time."""
    world = World()
    client = world.hello()
    make_log(client)
    world.files.lag = True
    for number in range(3_000):
        client.answered_below = client.sequence + 1
        assert client.publish("log", b"%d" % number, key=f"k{number % 700}")["op"] == "confirm"
    while world.files.waiting:
        world.files.work()
    ascend(world)
    items = [len(work.pieces) for work in archives(world)]
    assert max(items) <= 2 * archiving.MOST_ITEMS < sum(items)
    world.files.lag = False
    world.files.catch_up()
    assert bodies(client) == [b"%d" % number for number in range(3_000)]


def test_no_exchange_leads_to_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused with the name of the log; a binding that an older server took is gone with a start."""
    world = World()
    client = world.hello()
    make_log(client)
    group(client)
    client.request({"op": "exchange_set", "name": "e", "type": "hash"})
    client.request({"op": "bind", "exchange": "e", "queue": "q"})
    bind = {"op": "bind", "exchange": "e", "queue": "log@g", "pattern": "1000"}
    answer = client.request(bind)
    assert (answer["code"], "bind the log 'log'" in answer["text"]) == ("bad_name", True)
    assert client.request(bind | {"queue": "log@none"})["code"] == "unknown_queue"
    with monkeypatch.context() as older:
        older.setattr(limits, "GROUP_MARK", "!")
        assert client.request(bind)["op"] == "reply"
    world.restart()
    client = world.hello()
    part = {"op": "route", "exchange": "e", "count": 1, "routing_key": "k"}
    answer = client.sequenced([part], b"", b"\0\0\0\0\1\0\0\0", b"x")
    assert answer["op"] == "confirm", answer
    assert len(world.states("q")) == 1
    assert world.store.exchanges.bindings == 1
