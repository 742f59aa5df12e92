"""The delayed messages of one publish are one object, and each of them is what it would be alone."""

from __future__ import annotations

from array import array
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from harness import World

from minibrokerd.core.model.extents import Extent
from minibrokerd.core.model.messages import SYNC, Block, Span
from minibrokerd.core.model.sheaf import Sheaf

FIRST, COUNT = 1_020, 30


def block() -> Block:
    extent: Any = Extent
    return Block(1, FIRST, COUNT, extent, (1, None), 0, None, SYNC, 1, 0, 1_000, 1)


def told(spans: list[Span]) -> list[tuple[int, int, str]]:
    return [
        (at, span.ready_at_ms, span.key) for span in spans for at in range(span.first, span.stop)
    ]


@pytest.mark.parametrize("seed", range(40))
def test_a_sheaf_is_a_table_of_its_messages(seed: int) -> None:
    """Whatever leaves it, in whatever order: by its time, alone, or with its neighbours."""
    random, now_ms = Random(seed), 1_000
    delays = [random.choice((0, 0, 5, 5, 9, 400, 2**53)) for _ in range(COUNT)]
    keys = [random.choice("ab") for _ in range(COUNT)] if seed % 2 else ["k"] * COUNT
    rows = {FIRST + n: (1_000 + delays[n], keys[n]) for n in range(COUNT)}
    sheaf = Sheaf(block(), FIRST, 1_000, array("Q", delays), keys if seed % 2 else "k")
    if seed % 3 == 0:  # as a start finds it, with others that ended between them
        for at in random.sample(range(COUNT), 10):
            del rows[FIRST + at]
            sheaf.cross_out(Span(sheaf.block, FIRST + at, FIRST + at + 1, "", 0))
        sheaf = Sheaf.of(list(sheaf.spans()))
    while rows:
        assert sheaf.left == len(rows)
        assert told(list(sheaf.spans())) == [(at, *row) for at, row in sorted(rows.items())]
        assert sheaf.next_ms <= min(row[0] for row in rows.values())
        at = random.choice(list(rows))
        one = sheaf.find(at)
        assert one is not None
        assert told([one]) == [(at, *rows[at])]
        assert told(list(sheaf.spans(at)))[0][0] == at
        if random.random() < 0.4:
            now_ms += random.choice((0, 3, 300, 2**52))
            most = random.choice((1, 3, COUNT))
            due = sorted((row[0], at) for at, row in rows.items() if row[0] <= now_ms)[:most]
            left = sheaf.due(now_ms, most)
            assert told(left) == sorted((at, *rows.pop(at)) for _, at in due)
            assert all(a.stop < b.first or a.key != b.key or a.ready_at_ms != b.ready_at_ms
                       for a, b in pairwise(left))  # fmt: skip
        else:
            span = random.choice([one, *sheaf.spans()])
            for gone in range(span.first, span.stop):
                del rows[gone]
            sheaf.cross_out(span)
            assert sheaf.find(span.first) is None
    assert not sheaf.left
    assert list(sheaf.spans()) == []


def delayed(world: World, count: int = 10, **fields: Any) -> list[tuple[int, int]]:
    """Publish messages that are ready a second after each other, the last one first; return their ids."""
    bodies = [b"%d" % n for n in range(count)]
    world.hello().publish(
        "q", *bodies, delays=[1_000 * (count - n) for n in range(count)], **fields
    )
    queue = world.queue("q")
    assert len(queue.group.delayed) == 1, "they are one object, with one timer"
    return [(queue.number, n) for n in range(queue.next_sequence - count, queue.next_sequence)]


def test_each_is_ready_when_it_would_be_alone() -> None:
    world = World()
    delayed(world)
    client = world.hello()
    client.consume("q", prefetch=100)
    world.advance(7)  # times are rounded up to a tick
    for n in range(10):
        world.advance(992)
        assert client.messages() == []
        world.advance(8)
        assert [each.body for each in client.messages()] == [b"%d" % (9 - n)]
    world.check()
    assert not world.queue("q").group.delayed


def test_what_is_ready_at_once_enters_the_line_and_the_rest_waits() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a", b"b", b"c", b"d", delays=[0, 500, 0, 500])
    assert [each.body for each in client.receive_all("q")] == [b"a", b"c"]
    world.advance(504)
    assert [each.body for each in client.receive_all("q")] == [b"b", b"d"]


def touch_none(world: World, ids: list[tuple[int, int]]) -> None:
    client = world.hello()
    assert client.explain(ids[4])["reason"] == "delayed"
    assert [each["sequence"] for each in client.peek("q")] == [sequence for _, sequence in ids]
    due = client.request({"op": "peek", "queue": "q", "order": "due", "count": 100})
    assert [each["sequence"] for each in due["messages"]] == [at for _, at in reversed(ids)]


def cancel_one(world: World, ids: list[tuple[int, int]]) -> None:
    world.hello().cancel_messages("q", ids[4])


def retime_one(world: World, ids: list[tuple[int, int]]) -> None:
    world.hello().retime("q", ids[4], 60_000)


def move_one(world: World, ids: list[tuple[int, int]]) -> None:
    world.hello().request({"op": "move", "queue": "q", "target": "t", "count": 1})
    world.run_jobs()


def restart(world: World, ids: list[tuple[int, int]]) -> None:
    world.restart()


def copy_forward(world: World, ids: list[tuple[int, int]]) -> None:
    cancel_one(world, ids)
    world.free(world.store.synced, most_bytes=1)
    world.restart()


@pytest.mark.parametrize(
    ("act", "left"),
    [(touch_none, 10), (cancel_one, 9), (retime_one, 9), (move_one, 9), (restart, 10), (copy_forward, 9)],
)  # fmt: skip
@pytest.mark.parametrize("keys", [[], [f"key-{n}" for n in range(10)]], ids=["", "keyed"])
def test_one_is_taken_out_and_the_others_stay_together(
    act: Any, left: int, keys: list[str]
) -> None:
    world = World()
    fields: Any = {"keys": keys} if keys else {}
    act(world, delayed(world, **fields))
    world.check()
    sheaves = [each for each in world.queue("q").group.delayed.values() if isinstance(each, Sheaf)]
    assert [sheaf.left for sheaf in sheaves] == [left]
    client = world.hello()
    world.advance(10_008)
    world.run_jobs()
    assert len(client.receive_all("q")) == left
    world.check()


def test_many_that_are_ready_together_come_in_steps() -> None:
    world = World()
    client = world.hello()
    client.publish("q", *[b"x"] * 1_000, delays=[1_000 + n % 2 for n in range(1_000)])
    world.now_ms += 1_008
    group, ready = world.queue("q").group, [0]
    while group.delayed:
        world.run_job()
        assert group.lanes.ready - ready[-1] <= 600
        ready.append(group.lanes.ready)
    assert ready[-1] == 1_000
    world.check()


def test_a_purge_takes_all_of_them_and_their_timer() -> None:
    world = World()
    delayed(world)
    (timer,) = world.queue("q").group.delayed
    assert timer.armed
    assert world.hello().purge("q")["value"] == {"purged": 10}
    world.run_jobs()
    world.check()
    assert world.store.sums.held_bytes == 0
    assert not timer.armed


def test_those_that_expire_in_a_sheaf_leave_it_when_their_time_to_live_is_over() -> None:
    """At the end of their time to live, not when their delay is over."""
    world = World()
    delayed(world, ttl_ms=3_500)
    world.advance(3_490)
    assert world.queue("q").count() == 10
    world.advance(20)
    world.run_jobs()
    world.check()
    client = world.hello()
    counters = client.stats("q")
    assert (counters["ttl_expired"], counters["ready"], counters["delayed"]) == (10, 0, 0)
    assert not world.queue("q").group.delayed
