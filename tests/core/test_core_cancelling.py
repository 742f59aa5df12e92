"""protocol.md, `cancel_messages`: what was cancelled comes to nobody, whether it waited or was worked on."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client, Id
from harness import World

from minibroker.contract import wire
from minibrokerd.core.durable import paging
from minibrokerd.core.model import walks
from minibrokerd.core.model.sums import Sums

KINDS = ("fresh", "keyed", "delayed", "retried", "cold", "dead", "held", "begun", "received")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few messages be many: they leave memory, and steps are short."""
    monkeypatch.setattr(Sums, "large_bytes", 0)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 2)
    monkeypatch.setattr(walks, "LOOKS", 20)


def world_of(kind: str, durability: str = "sync") -> tuple[World, Client, Client, list[Id]]:
    """Return a world, its administrator, its worker, and the ids of three messages of a kind."""
    world = World(segment_batches=3)
    boss, worker = world.hello("boss"), world.hello("worker")
    boss.set("q", max_attempts=1 if kind == "dead" else 3, durability=durability, lease_ms=5_000)
    fields: dict[str, Any] = {"delay_ms": 60_000} if kind == "delayed" else {}
    if kind == "keyed":
        fields["keys"] = ["a", "b", "a"]
    if kind == "cold":
        for _ in range(9):
            boss.publish("q", b"before")
    result = boss.publish("q", b"0", b"1", b"2", **fields)["results"][0]
    ids = [(result["origin"], result["first"] + n) for n in range(3)]
    if kind == "cold":
        world.freeze()
        boss.publish("q", b"behind")
    elif kind == "retried":
        worker.settle("nack", *worker.receive_all("q"), delay_ms=1_000)
    elif kind == "dead":
        boss.set("q.dlq", max_messages=1, lease_ms=1_000, durability=durability)
        boss.publish("q", b"fills")
        worker.settle("reject", *[m for m in worker.receive_all("q") if m.body == b"fills"])
        world.advance(6_000)
    elif kind in ("held", "begun"):
        worker.consume("q", prefetch=3)
        messages = worker.messages()
        if kind == "begun":
            worker.begin(*messages)
        worker.inbox += [{"op": "deliver", "messages": messages}]
    elif kind == "received":
        answer = worker.receive("q", 3)
        worker.inbox.append(answer)
    return world, boss, worker, ids


@pytest.mark.parametrize("how", ["no", "clean", "crash", "forwarded"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_never_comes_again_and_the_others_do(kind: str, how: str) -> None:
    """By its id, over restarts, without its segment; counted, and explained."""
    world, boss, worker, ids = world_of(kind)
    running = int(kind in ("held", "begun", "received"))
    answer = boss.cancel_messages("q", ids[1])
    assert answer["value"] == {"cancelled": 1, "running": running}
    assert boss.explain(ids[1])["by"] == "boss"
    assert boss.explain(ids[1])["reason"] == "cancelled"
    assert boss.stats("q")["cancelled"] == 1
    world.check()
    if how == "forwarded":
        world.free(world.core.synced)
    if how != "no":
        world.restart(clean=how != "crash")
        boss = world.hello()
        assert boss.explain(ids[1])["reason"] == "ended"
    else:
        world.disconnect(worker)
    boss.set("q.dlq", max_messages=0)
    world.advance(200_000)
    there = {**world.states("q"), **world.states("q.dlq")}
    assert ids[0] in there
    assert ids[2] in there
    assert ids[1] not in there
    got = set()
    for queue in ("q", "q.dlq"):
        while messages := boss.receive_all(queue):
            got |= {message.id for message in messages}
    assert {ids[0], ids[2]} <= got
    assert ids[1] not in got
    world.check()


@pytest.mark.parametrize("durability", ["sync", "lazy", "memory"])
@pytest.mark.parametrize("kind", ["held", "begun", "received"])
def test_a_worker_is_told_and_cannot_settle_it(kind: str, durability: str) -> None:
    """By the token that it has; what it says of it is lost, and it may take another one."""
    world, boss, worker, ids = world_of(kind, durability)
    messages = worker.messages()
    boss.cancel_messages("q", ids[1])
    (told,) = [frame for frame in worker.inbox if frame["op"] == "cancelled"]
    assert (told["queue"], told["by"], told["lost_runs"]) == ("q", "boss", [messages[1].run])
    for op in ("ack", "nack", "reject", "release", "extend"):
        answer = worker.settle(op, messages[1])
        assert answer["results"] == [{"lost": 1}], op
    assert worker.settle("ack", messages[0], messages[2])["results"] == [{"lost": 0}]
    boss.publish("q", b"3")
    got = worker.messages() or worker.receive_all("q")
    assert [m.body for m in got] == [b"3"]
    world.check()


@pytest.mark.parametrize("begins", [True, False])
def test_a_worker_gets_another_one_at_once(begins: bool) -> None:
    """Its place is free, though it has said nothing of what was cancelled, and never will."""
    world = World()
    boss, worker = world.hello("boss"), world.hello("worker")
    worker.consume("q", prefetch=1)
    for n in range(5):
        boss.publish("q", b"%d" % n)
        (message,) = worker.messages()
        assert message.body == b"%d" % n
        if begins:
            worker.begin(message)
        boss.cancel_messages("q", message.id)
    assert boss.stats("q")["cancelled"] == 5
    world.check()


def test_a_worker_that_is_away_is_told_when_it_comes_back() -> None:
    """Which of the lost ones were cancelled; by a server that was restarted, or has freed that log, too."""
    for restart in ("no", "crash", "forwarded"):
        world, boss, worker, ids = world_of("begun")
        messages = worker.messages()
        world.disconnect(worker)
        boss.cancel_messages("q", ids[1])
        if restart == "forwarded":
            world.free(world.core.synced)
        if restart != "no":
            world.restart(clean=False)
        gone = (messages[0].token, 1, 77, 1)
        worker = world.resume(worker, messages, runs=[gone])
        welcome = worker.pop("welcome")
        assert welcome["lost_runs"] == [messages[1].run, gone]
        assert welcome["cancelled"] == 1
        assert worker.settle("ack", messages[1])["results"] == [{"lost": 1}]
        assert worker.settle("ack", messages[0])["results"] == [{"lost": 0}]


def test_nobody_is_told_before_it_is_safe() -> None:
    """Neither who cancelled it, nor its worker: a crash could take it back."""
    world = World(auto_sync=False)
    boss, worker = world.hello("boss"), world.hello("worker")
    boss.publish("q", b"a")
    world.sync()
    worker.consume("q")
    world.sync()
    worker.inbox.clear()
    assert boss.cancel_messages("q", (1, 0)) is None
    assert worker.inbox == []
    world.sync()
    assert [frame["op"] for frame in worker.inbox] == ["cancelled"]
    assert boss.answer(request=boss.requests)["value"]["cancelled"] == 1


def test_one_that_is_not_safe_yet_is_cancelled_when_it_is() -> None:
    """Its publish is confirmed, and it waits for nobody."""
    world = World(auto_sync=False)
    boss = world.hello("boss")
    boss.publish("q", b"a")
    boss.request({"op": "cancel_messages", "queue": "q", "runs": 1}, wire.pack_runs([(0, 1, 0, 1)]))
    cancel = boss.requests
    for _ in range(5):
        world.sync()
        world.advance(20)
    world.sync()
    assert boss.answer(request=cancel)["value"]["cancelled"] == 1
    assert world.states("q") == {}
    world.check()


def test_by_key() -> None:
    """Ready, delayed, held and begun ones of it, and no others."""
    world = World()
    boss, worker = world.hello("boss"), world.hello("worker")
    keys = ["a", "b", ""] * 4
    boss.publish("q", *[b"x"] * 12, keys=keys)
    boss.publish("q", *[b"x"] * 3, keys=["a", "b", ""], delay_ms=60_000)
    worker.consume("q", prefetch=6)
    messages = worker.messages()
    worker.begin(messages[0])
    held = sum(m.key == "a" for m in messages)
    answer = boss.cancel_messages("q", key="a")
    assert answer["value"] == {"cancelled": 5, "running": held}
    assert held >= 1
    left = {id[1] for id in world.states("q")}
    assert left == {n for n in range(15) if n % 3}
    world.check()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"state": "READY"}, {"cancelled": 25, "running": 0}),
        ({"state": "DELAYED"}, {"cancelled": 3, "running": 0}),
        ({"state": "HELD"}, {"cancelled": 3, "running": 3}),
        ({"state": "BEGUN"}, {"cancelled": 2, "running": 2}),
        ({"client": "worker"}, {"cancelled": 4, "running": 4}),
        ({"client": "worker", "state": "BEGUN"}, {"cancelled": 1, "running": 1}),
        ({"client": "nobody"}, {"cancelled": 0, "running": 0}),
        ({"key": "k"}, {"cancelled": 0, "running": 0}),
    ],
)
def test_by_state_and_client(fields: dict[str, str], expected: dict[str, int]) -> None:
    """All for which all of it holds; of messages that left memory, too."""
    world = World(segment_batches=100)
    boss, worker, other = (world.hello(name) for name in ("boss", "worker", "other"))
    for _ in range(30):
        boss.publish("q", b"x")
    boss.publish("q", *[b"x"] * 3, delay_ms=60_000)
    worker.consume("q", prefetch=4)
    worker.begin(worker.messages()[0])
    other.receive_all("q", 1)
    world.freeze()
    assert world.queue("q").group.lanes.default.cold
    before = world.states("q")
    assert boss.cancel_messages("q", **fields)["value"] == expected
    gone = before.keys() - world.states("q").keys()
    assert len(gone) == expected["cancelled"]
    assert {before[id] for id in gone} <= {fields.get("state", before[id]) for id in gone}
    world.check()
    world.thaw()
    world.check()


def test_what_is_not_there_is_named() -> None:
    _, boss, _, ids = world_of("fresh")
    answer = boss.cancel_messages("q", ids[0], (1, 99), (9, 0))
    assert answer["value"] == {"cancelled": 1, "running": 0, "left": {"missing": 2}}
    assert boss.cancel_messages("q", ids[0])["value"]["cancelled"] == 0


@pytest.mark.parametrize(
    ("queue", "code", "fields"),
    [
        ("q", "bad_value", {}),
        ("q", "bad_value", {"state": "DONE"}),
        ("nowhere", "unknown_queue", {"key": "a"}),
    ],
)
def test_what_is_refused(queue: str, code: str, fields: dict[str, str]) -> None:
    """That all are meant is said with a purge."""
    _, boss, _, _ = world_of("fresh")
    assert boss.cancel_messages(queue, **fields)["code"] == code
    assert boss.cancel_messages("q", (1, 0), key="a")["code"] == "bad_value"
