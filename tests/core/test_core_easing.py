"""Promises about what leaves memory where nothing is short: what is asked for soon stays."""

from __future__ import annotations

from collections import deque

import pytest
from harness import World, cold_runs

from minibrokerd.core.durable import paging
from minibrokerd.core.model import cold, paces
from minibrokerd.core.model.inputs import Freeze
from minibrokerd.core.model.messages import Block, Span
from minibrokerd.core.model.sums import Sums


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two messages of a queue stay in memory, and no frame is too small or too young to leave at once."""
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 2)
    monkeypatch.setattr(paging, "SMALL_BYTES", 0)
    monkeypatch.setattr(paging, "YOUNG_MS", 0)
    monkeypatch.setattr(Sums, "large_bytes", 0)


def ease(world: World) -> int:
    """Let leave what is not needed soon; return how many messages of the queue are not in memory then."""
    world.apply(Freeze(2**62, is_easy=True))
    world.check()
    return sum(run.left for run in cold_runs(world.queue("q")))


def filled(count: int, *, frame: int = 1, **terms: int) -> World:
    """Return a world with so many messages in frames of `frame`."""
    world = World(segment_batches=100)
    client = world.hello()
    for number in range(0, count, frame):
        bodies = [b"%d" % each for each in range(number, number + frame)]
        client.publish("q", *bodies, **terms)
    return world


def test_what_nobody_consumes_leaves_but_for_what_comes_next() -> None:
    assert ease(filled(9)) == 7


def test_a_small_frame_stays_however_long_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "SMALL_BYTES", 1_000)
    world = filled(9)
    world.advance(3_600_000)
    assert ease(world) == 0


def test_a_large_frame_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "SMALL_BYTES", 1_000)
    assert ease(filled(90, frame=30)) == 60


def test_what_came_a_moment_ago_stays_and_leaves_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who publishes a burst and then consumes it would read all of it from the disk."""
    monkeypatch.setattr(paging, "YOUNG_MS", 2_000)
    world = filled(9)
    world.advance(1_000)
    world.hello().publish("q", b"9")
    world.advance(999)
    assert ease(world) == 0
    world.advance(1)
    assert ease(world) == 7, "all but two of those that came first"
    world.advance(1_000)
    assert ease(world) == 8


def test_what_will_be_consumed_soon_stays() -> None:
    """None of it would be read from the disk if it went on like that."""
    world = filled(100)
    client = world.hello()
    client.consume("q", prefetch=1)
    assert ease(world) == 0, "how fast it is consumed is not known yet"
    for _ in range(2):
        world.advance(paces.WINDOW_MS // 2)
        client.settle("ack", *client.messages())
    per_s, ready = 2 * 1_000 // paces.WINDOW_MS, world.lanes("q")[0].ready
    assert ease(world) == ready - per_s * paces.SOON_MS // 1_000


def test_a_pace_falls_by_half_while_nothing_is_taken() -> None:
    pace = paces.Pace(0, 0)
    assert pace.soon(paces.WINDOW_MS - 1, 100) is None
    first = pace.soon(paces.WINDOW_MS, 100)
    assert first == 100 * paces.SOON_MS // paces.WINDOW_MS
    assert pace.soon(2 * paces.WINDOW_MS - 1, 100) == first, "a window is not over"
    assert pace.soon(2 * paces.WINDOW_MS, 100) == first // 2
    assert pace.soon(3 * paces.WINDOW_MS, 200) == first
    assert pace.soon(6 * paces.WINDOW_MS, 200) == first // 8


def test_the_pace_of_who_receives_now_and_then_counts() -> None:
    """Between two calls he is no consumer of the queue."""
    world = filled(100)
    client = world.hello()
    assert ease(world) == 98
    world.thaw()
    for _ in range(2):
        world.advance(paces.WINDOW_MS // 2)
        client.settle("ack", *client.receive_all("q", 2))
    ready = world.lanes("q")[0].ready
    assert ease(world) == ready - 4 * 1_000 // paces.WINDOW_MS * paces.SOON_MS // 1_000


@pytest.mark.parametrize("kind", ["memory", "ttl"])
def test_what_cannot_leave_stays_where_it_is(kind: str) -> None:
    """Put aside it would take more than where it stands."""
    if kind == "memory":
        world = World(segment_batches=100)
        client = world.hello()
        client.set("q", durability="memory")
        for number in range(40):
            client.publish("q", b"%d" % number)
    else:
        world = filled(40, ttl_ms=60_000)
    assert ease(world) == 0
    assert not world.lanes("q")[0].default.returned


def test_a_few_that_cannot_leave_do_not_keep_those_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paging, "FEW", 3)
    world = filled(4)
    client = world.hello()
    for number in range(4, 20):
        client.publish("q", b"%d" % number, **({"ttl_ms": 60_000} if number in {6, 7} else {}))
    assert ease(world) == 20 - 2 - 2
    got: list[bytes] = []
    client.consume("q", prefetch=1)
    while len(got) < 20:
        (message,) = client.messages()
        got.append(message.body)
        client.settle("ack", message)
    assert got == [b"%d" % number for number in range(20)]


def test_what_is_ahead_is_counted_once_a_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    """While enough is in memory a hand-out does not look at each of its spans."""
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 8)
    monkeypatch.setattr(cold, "CHUNK_FRAMES", 4)
    world = filled(100, frame=2)
    assert ease(world) == 92
    counts: list[int] = []
    count = paging._spans_ahead

    def counted(fresh: deque[Span]) -> int:
        counts.append(len(fresh))
        return count(fresh)

    monkeypatch.setattr(paging, "_spans_ahead", counted)
    client = world.hello()
    client.consume("q", prefetch=1)
    for number in range(100):
        (message,) = client.messages()
        assert message.body == b"%d" % number
        client.settle("ack", message)
    assert len(counts) <= 2 * 100 // (4 * 2), "one that asks for a stretch, and one that finds it"


def test_a_step_looks_at_few_spans_and_moves_none_where_nothing_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backlog of lone messages that is drained fast: each step looked at what is handed out within 5 s."""
    monkeypatch.setattr(paging, "NEAR_SPANS", 10, raising=False)
    world = filled(100)
    queue = world.queue("q")
    fresh = queue.group.lanes.default.fresh
    pace = queue.sums.large[queue] = paces.Pace(world.now_ms, 0)
    monkeypatch.setattr(paces.Pace, "soon", lambda *_: 60)
    looks: list[int] = []
    count = Block.bytes_of

    def counted(block: Block, first: int, stop: int) -> int:
        looks.append(first)
        return count(block, first, stop)

    monkeypatch.setattr(Block, "bytes_of", counted)
    world.apply(Freeze(2**62, is_easy=True))
    assert pace is queue.sums.large[queue]
    assert 0 < len(looks) <= 10
    assert queue.group.lanes.default.fresh is fresh
