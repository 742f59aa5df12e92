"""protocol.md, `retime` and `peek`: delayed messages by when they are due, and another time for what waits."""

from __future__ import annotations

import random
from typing import Any

import pytest
from core_client import Client, Id
from harness import START_UNIX_MS, World

from minibroker.contract import wire
from minibrokerd.core.durable import paging
from minibrokerd.core.model import walks
from minibrokerd.core.model.records import ReturnMeta
from minibrokerd.core.model.sums import Sums
from minibrokerd.core.verbs import due

FIVE_MINUTES_MS = 300_000
TICK_MS = 8


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few messages be many: they leave memory, and steps are short."""
    monkeypatch.setattr(Sums, "large_bytes", 0)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 2)
    monkeypatch.setattr(walks, "LOOKS", 20)
    monkeypatch.setattr(due, "KEPT", 3)


def asked(client: Client, part: dict[str, Any], columns: bytes = b"") -> dict[str, Any]:
    """Return the answer to a request that may take steps."""
    answer = client.request(part, columns)
    client.world.run_jobs()
    found: dict[str, Any] = answer or client.answer(request=client.requests)
    return found


def retime(client: Client, *ids: Id, queue: str = "q", **fields: Any) -> dict[str, Any]:
    """Return what a retime is answered with."""
    part = {"op": "retime", "queue": queue, "runs": len(ids), **fields}
    answer = asked(client, part, wire.pack_runs((0, *id, 1) for id in ids))
    value: dict[str, Any] = answer.get("value", answer)
    return value


def by_due(client: Client, count: int = 1_000, after: bytes = b"") -> tuple[list[Id], bytes]:
    """Return the ids of a page of delayed messages, and where the next one begins."""
    part = {"op": "peek", "queue": "q", "count": count, "after": after, "order": "due"}
    answer = asked(client, part)
    return [(each["origin"], each["sequence"]) for each in answer["messages"]], answer.get(
        "next", b""
    )


def waiting(kind: str) -> tuple[World, Client, Id]:
    """Return a world with some messages of a kind in `q`, and one that is to have another time."""
    world = World(segment_batches=100 if kind == "cold" else 3)  # what left memory is one run
    client = world.hello()
    names = [b"%d" % each for each in range(9)]
    delay_ms = 60_000 if kind == "delayed" else 0
    keys = {"keys": [f"k{each % 2}" for each in range(9)]} if kind == "keyed" else {}
    client.publish("q", *names, delay_ms=delay_ms, **keys)
    if kind == "cold":
        for name in names:
            client.publish("q", name)
        world.freeze()
        assert world.queue("q").group.lanes.default.cold
        return world, client, (1, 14)
    if kind == "retried":
        client.settle("nack", *client.receive_all("q"), delay_ms=60_000, error=("E", "no"))
    return world, client, (1, 4)


KINDS = ("fresh", "delayed", "keyed", "cold", "retried")


@pytest.mark.parametrize("how", ["no", "clean", "crash", "forwarded"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_message_that_waits_is_ready_at_its_new_time(kind: str, how: str) -> None:
    """Not before, and within a tick after it; its neighbours stay; over a restart, too."""
    world, client, id = waiting(kind)
    before = {each["sequence"]: each for each in client.peek("q")}
    start_ms = world.now_ms
    assert retime(client, id, delay_ms=FIVE_MINUTES_MS) == {"retimed": 1}
    world.check()
    if how == "forwarded":
        world.free(world.core.synced)
    if how != "no":
        world.restart(clean=how != "crash")
        client = world.hello()
        start_ms = world.now_ms
    after = {each["sequence"]: each for each in client.peek("q")}
    changed = after.pop(id[1])
    old = before.pop(id[1])
    assert changed["state"] == "DELAYED"
    assert (changed["body"], changed.get("history", [])) == (old["body"], old.get("history", []))
    assert {n: each["state"] for n, each in after.items()} == {
        n: each["state"] for n, each in before.items()
    }
    world.advance(start_ms + FIVE_MINUTES_MS - world.now_ms - 1)
    assert world.states("q")[id] == "DELAYED"
    world.advance(1 + TICK_MS)
    assert world.states("q")[id] == "READY"
    world.check()


@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_now(kind: str) -> None:
    """What is ready keeps its place; what is delayed is ready at once, over a restart too."""
    world, client, id = waiting(kind)
    assert retime(client, id) == {"retimed": 1}
    assert world.states("q")[id] == "READY"
    world.restart(clean=False)
    world.advance(2_000)
    assert world.states("q")[id] == "READY"
    world.check()


def test_a_time_by_the_clock_of_the_server() -> None:
    world, client, id = waiting("fresh")
    at_unix_ms = START_UNIX_MS + 90_000
    assert retime(client, id, at_unix_ms=at_unix_ms) == {"retimed": 1}
    assert client.explain(id)["until_unix_ms"] == at_unix_ms
    assert retime(client, id, at_unix_ms=1) == {"retimed": 1}  # it has passed
    assert world.states("q")[id] == "READY"


def test_one_record_and_one_batch() -> None:
    """The answer rests on it."""
    world = World(auto_sync=False)
    client = world.hello()
    client.publish("q", b"a", delay_ms=60_000)
    world.sync()
    batches = len(world.log)
    part = {"op": "retime", "queue": "q", "runs": 1, "delay_ms": 5}
    assert client.request(part, wire.pack_runs([(0, 1, 0, 1)])) is None
    world.sync()
    (batch,) = world.log[batches:]
    assert [type(record.says) for record in batch.records] == [ReturnMeta]
    assert client.answer(request=client.requests)["value"] == {"retimed": 1}


def test_what_does_not_wait_is_left_and_named() -> None:
    """Held, begun, dead and gone."""
    world = World()
    client = world.hello()
    client.set("q", max_attempts=1)
    client.publish("q", *[b"x"] * 5)
    client.settle("reject", *client.receive_all("q", 1))
    client.set("q.dlq", max_messages=1)
    client.settle("reject", *client.receive_all("q", 1))  # it waits for room
    client.consume("q", prefetch=2)
    client.begin(client.messages()[0])
    before = world.states("q")
    told = retime(client, *((1, n) for n in range(6)), delay_ms=1_000)
    left = {"missing": 2, "dead": 1, "begun": 1, "held": 1}
    assert told == {"retimed": 1, "left": left}
    assert {**before, (1, 4): "DELAYED"} == world.states("q")
    world.check()


@pytest.mark.parametrize("fields", [{"delay_ms": 1, "at_unix_ms": 1}, {}])
def test_what_is_refused(fields: dict[str, Any]) -> None:
    _, client, id = waiting("fresh")
    ids = [id] if fields else []
    assert retime(client, *ids, **fields)["code"] == "bad_value"
    assert retime(client, id, queue="nowhere")["code"] == "unknown_queue"


@pytest.mark.parametrize("size", [1, 4, 1_000])
def test_pages_go_by_when_they_are_due(size: int) -> None:
    """Each once, the ones of one time by their ids; what is ready or dead is in none."""
    world = World()
    client = world.hello()
    chance = random.Random(size)
    delays = [
        chance.choice([0, 1_000, 2_000, 10**7, 10**9]) + chance.randrange(3) for _ in range(60)
    ]
    for at in range(0, 60, 5):
        client.publish("q", *[b"x"] * 5, delays=delays[at : at + 5])
    world.advance(50)
    expected = sorted((delay, n) for n, delay in enumerate(delays) if delay > 50)
    seen: list[Id] = []
    after = b""
    while True:
        page, after = by_due(client, size, after)
        assert len(page) == size or not after
        seen += page
        if not after:
            break
    assert seen == [(1, n) for _, n in expected]


def test_a_list_goes_on_while_times_change() -> None:
    """What is not touched is met once; what was shown and is put off is met again, where it is then."""
    world = World()
    client = world.hello()
    client.publish("q", *[b"x"] * 6, delays=[1_000 * n for n in range(1, 7)])
    page, after = by_due(client, 2)
    assert page == [(1, 0), (1, 1)]
    retime(client, (1, 0), delay_ms=10_000)
    retime(client, (1, 3))
    rest, after = by_due(client, 10, after)
    assert (rest, after) == ([(1, 2), (1, 4), (1, 5), (1, 0)], b"")
    world.restart()
    client = world.hello()
    assert by_due(client)[0] == [(1, 1), (1, 2), (1, 4), (1, 5), (1, 0)]


@pytest.mark.parametrize("more", [{"order": "x"}, {"order": "due", "state": "READY"}])
def test_an_order_is_of_delayed_messages(more: dict[str, str]) -> None:
    _, client, _ = waiting("delayed")
    assert asked(client, {"op": "peek", "queue": "q", **more})["code"] == "bad_value"


def test_it_waits_while_the_disk_is_far_behind() -> None:
    """What many messages are asked to do writes much: it goes on when what was written before is safe."""
    world = World(auto_sync=False)
    client = world.hello()
    for body in (b"0", b"1", b"2", b"3", b"4"):
        client.publish("q", body)
        world.close_batch()
    world.sync_one()
    client.retime("q", (1, 0), FIVE_MINUTES_MS)
    assert world.states("q")[1, 0] == "READY"
    assert client.answer(request=client.requests) is None
    world.sync()
    world.advance(walks.PAUSE_MS + TICK_MS)
    world.run_jobs()
    world.sync()
    assert world.states("q")[1, 0] == "DELAYED"
    assert client.answer(request=client.requests)["value"] == {"retimed": 1}
