"""protocol.md 5.20: what a queue was before it became a retained log; what must not end one, or delay in it."""

from __future__ import annotations

import pytest
from core_client import Client
from harness import World
from test_core_log_bounds import CHOSEN
from test_core_logs import ascend, bodies, group, log_of, make_log

from minibroker.contract.limits import SESSION_KEPT_MS
from minibrokerd.core.verbs import retiming

PERIOD_MS = 60_000


def policy(world: World, client: Client, *, operator: int = 0, **settings: int | str) -> None:
    """Let a policy, or a limit, hold for all queues."""
    part = {"op": "policy_set", "name": "all", "pattern": "*", "settings": settings, "priority": 0}
    client.request(part | {"operator": operator})
    world.run_jobs()


def is_there(client: Client, queue: str = "log") -> bool:
    """Whether there is such a queue."""
    return bool(client.request({"op": "queue_show", "queue": queue})["op"] == "reply")


# -- messages that are to be ready at another time ------------------------------------------------


def test_a_message_of_a_log_is_not_retimed() -> None:
    """It is refused, and all go on in their order."""
    world = World()
    client = world.hello()
    make_log(client)
    world.files.lag = True
    for body in (b"a", b"b", b"c"):
        client.publish("log", body)
    assert client.retime("log", (1, 1), 5_000)["code"] == "bad_value"
    world.files.lag = False
    world.advance(6_000)
    world.files.catch_up()
    assert bodies(client) == [b"a", b"b", b"c"]
    world.check()


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("key", ["", "k"])
def test_a_log_with_a_record_of_another_time_starts_in_order(
    digests: bool, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a record delays in a log is ready at once at a start, at its place."""
    world = World()
    world.digests = digests
    client = world.hello()
    make_log(client)
    world.files.lag = True
    for body in (b"a", b"b", b"c"):
        client.publish("log", body, key=key)
    with monkeypatch.context() as patch:  # it was not refused always
        patch.setattr(retiming, "RetainedLog", type(None), raising=False)
        assert client.retime("log", (1, 1), 5_000)["value"] == {"retimed": 1}
    for _ in range(2):
        world.restart(clean=False)
        world.files.lag = True
    world.files.lag = False
    world.files.catch_up()
    world.advance(6_000)
    client = world.hello()
    ascend(world)
    assert bodies(client) == [b"a", b"b", b"c"]
    assert world.queue("log").count() == 0
    world.restart(clean=False)
    assert bodies(world.hello()) == [b"a", b"b", b"c"]
    world.check()


# -- what a queue was before ------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), CHOSEN)
def test_what_was_chosen_before_counts(name: str, value: int | str) -> None:
    """A queue becomes a log with the settings that it has if it could be made with them, and not else."""
    world = World()
    client = world.hello()
    wanted = client.set("other", kind="log", **{name: value}).get("code")
    answer = client.set("log", **{name: value})
    if answer["op"] == "error":  # what only logs have
        return
    assert client.set("log", kind="log").get("code") == wanted
    assert ("log" in {log.queue.name for log in world.store.retained.logs.values()}) == (not wanted)
    part = {"op": "queue_set", "queue": "log", "settings": {"kind": "log"}, "unset": [name]}
    assert client.request(part)["op"] == "reply"
    assert log_of(world)
    world.check()


@pytest.mark.parametrize("state", ["ready", "delayed", "begun"])
def test_a_queue_with_a_message_from_elsewhere_becomes_no_log(state: str) -> None:
    """It was moved there, and no id of this queue was given."""
    world = World()
    client = world.hello()
    client.publish("other", b"a")
    client.set("log", max_attempts=3)
    client.request({"op": "move", "queue": "other", "target": "log", "runs": 0, "count": 1})
    world.run_jobs()
    assert world.queue("log").count() == 1
    if state == "delayed":
        assert client.retime("log", (1, 0), 5_000)["value"] == {"retimed": 1}
    elif state == "begun":
        client.receive_all("log")
    assert client.set("log", kind="log")["code"] == "bad_value"
    assert not world.store.retained.logs
    world.advance(6_000)
    world.check()


def test_a_queue_whose_dead_came_from_elsewhere_becomes_no_log() -> None:
    """They are redriven into the queue, and a log takes nothing of others."""
    world = World()
    client = world.hello()
    client.publish("other", b"a")
    client.set("log", max_attempts=3)
    client.request({"op": "move", "queue": "other", "target": "log", "runs": 0, "count": 1})
    client.settle("reject", *client.receive_all("log"))
    assert not world.queue("log").count()
    assert client.set("log", kind="log")["code"] == "bad_value"
    client.purge("log.dlq")
    make_log(client)
    client.redrive("log.dlq", count=1)
    client.publish("log", b"b")
    assert bodies(client) == [b"b"]
    world.check()


def test_a_move_that_goes_on_moves_nothing_to_what_became_a_log() -> None:
    """It waited for whoever may have the messages, and its target became a log meanwhile."""
    world = World()
    client = world.hello()
    client.set("log", max_attempts=3)
    client.publish("other", b"a")
    client.begin(*client.receive_all("other"))
    client.publish("other", b"b")
    world.restart(clean=False, waits=True)
    client = world.hello("another")
    moving = {"op": "move", "queue": "other", "target": "log", "runs": 0, "count": 1}
    assert client.request(moving) is None
    make_log(client)
    world.wait_no_longer()
    world.advance(1_000)
    world.run_jobs()
    assert client.answer(request=client.requests - 1)["value"]["moved"] == 0
    assert world.queue("other").count() == 2
    client.publish("log", b"c")
    assert bodies(client) == [b"c"]
    world.check()


# -- what must not end a log -------------------------------------------------------------------------


def test_no_log_is_exclusive() -> None:
    """Neither declared so, nor made a log when it belongs to a session."""
    world = World()
    client = world.hello()
    part = {"op": "queue_declare", "queue": "log", "exclusive": 1}
    assert client.request(part | {"settings": {"kind": "log"}})["code"] == "bad_value"
    assert not is_there(client)
    assert client.request(part | {"queue": "", "settings": {"kind": "log"}})["code"] == "bad_value"
    assert client.request(part | {"settings": {}})["op"] == "reply"
    assert client.set("log", kind="log")["code"] == "bad_value"
    assert not world.store.retained.logs


def test_an_end_of_a_log_from_inside_waits_for_consumers_of_groups() -> None:
    """A log that belongs to a session, as one could before, ends when nobody consumes its groups any more."""
    world = World()
    owner, worker = world.hello("owner"), world.hello("worker")
    make_log(owner)
    queue = group(owner)
    store = world.store
    session = store.connections[owner.connection].session
    store.owners.add(store, world.queue("log"), session.id, "owner")
    owner.publish("log", b"a")
    worker.consume(queue)
    world.disconnect(owner)
    world.advance(SESSION_KEPT_MS + 1_000)
    world.run_jobs()
    assert "log" in store.queues
    assert not store.jobs
    worker.cancel()
    world.advance(3_000)
    world.run_jobs()
    assert not {"log", queue} & store.queues.keys()
    world.check()


@pytest.mark.parametrize("operator", [0, 1])
def test_a_temporary_queue_that_becomes_a_log_stays(operator: int) -> None:
    """A policy says that unused queues end; that is not for logs, and a look begun before ends nothing."""
    world = World()
    client = world.hello()
    policy(world, client, operator=operator, delete_unused_ms=PERIOD_MS)
    client.set("log", max_attempts=3)
    assert world.queue("log") in world.store.sums.looked_after
    make_log(client)
    assert world.queue("log") not in world.store.sums.looked_after
    queue = group(client)
    client.consume(queue)
    client.publish("log", b"a")
    world.advance(5 * PERIOD_MS)
    assert is_there(client)
    client.cancel()
    world.advance(5 * PERIOD_MS)
    assert is_there(client)
    assert bodies(client) == [b"a"]


@pytest.mark.parametrize("operator", [0, 1])
def test_a_policy_ends_no_group(operator: int) -> None:
    """Its position would be lost; if somebody chose that for it, it ends, and no later than a limit says."""
    world = World()
    client = world.hello()
    make_log(client)
    one, two = group(client, "one"), group(client, "two")
    policy(world, client, operator=operator, delete_unused_ms=PERIOD_MS)
    client.set("work", max_attempts=3)
    client.publish("auto", b"a")
    late = group(client, "late")
    client.set(two, max_attempts=3)
    for _ in range(2):
        world.advance(3 * PERIOD_MS)
        assert is_there(client, one)
        assert is_there(client, two)
        assert is_there(client, late)
        assert not is_there(client, "work")
        assert not is_there(client, "auto")
        world.restart(clean=False)
        client = world.hello()
    client.set(two, delete_unused_ms=2 * PERIOD_MS)
    expected = PERIOD_MS if operator else 2 * PERIOD_MS
    assert world.queue(two).settings["delete_unused_ms"] == expected
    world.advance(5 * PERIOD_MS)
    assert not is_there(client, two)
    assert is_there(client, one)
    world.check()
