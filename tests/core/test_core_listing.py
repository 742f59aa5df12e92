"""Every verb of a person against every kind of queue: it acts on all that it claims to, or says what it left."""

from __future__ import annotations

import random
from typing import Any

import pytest
from core_client import Client, Id
from harness import World

from minibroker.contract import wire
from minibrokerd.core.durable import paging
from minibrokerd.core.model import walks
from minibrokerd.core.model.sums import Sums
from minibrokerd.core.verbs import listing

COUNT = 60
KINDS = (
    "fresh",
    "cold",
    "late",
    "delayed",
    "keyed",
    "returned",
    "retried",
    "held",
    "begun",
    "each",
)
WAIT = ("fresh", "cold", "late", "delayed", "keyed", "returned", "retried")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few messages be many: they leave memory, and steps and pages are short."""
    monkeypatch.setattr(Sums, "large_bytes", 0)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 5)
    monkeypatch.setattr(walks, "LOOKS", 20)


def fill(world: World, client: Client, kind: str, count: int = COUNT) -> None:
    """Let `q` have so many messages of a kind."""
    names = [b"%s-%d" % (kind.encode(), n) for n in range(count)]
    if kind == "each":
        for each in KINDS[:-1]:
            fill(world, client, each, 9)
    elif kind == "delayed":
        client.publish("q", *names, delays=[10**9 + n % 3 for n in range(count)])
    elif kind == "keyed":
        client.publish("q", *names, keys=[f"k{n % 7}" for n in range(count)])
    else:
        for at in range(0, count, 3):
            client.publish("q", *names[at : at + 3])
    if kind == "cold":
        world.freeze()
    elif kind == "late":
        world.freeze()
        client.publish("q", b"behind")
    elif kind in ("returned", "retried", "held", "begun"):
        lend(world, client, kind, count)


def lend(world: World, client: Client, kind: str, count: int) -> None:
    """Let what is ready have been handed out."""
    worker = world.hello()
    if kind in ("returned", "held"):
        worker.consume("q", prefetch=count)
        assert worker.messages()
        if kind == "returned":
            world.disconnect(worker)
        return
    taken = worker.receive_all("q", count, lease_ms=10**7)
    if kind == "retried":
        worker.settle("nack", *taken, delay_ms=0)


def made(kind: str) -> tuple[World, Client]:
    """Return a world whose `q` has messages of a kind."""
    world = World()
    client = world.hello()
    client.publish("q", b"first")
    client.settle("ack", *client.receive_all("q"))
    fill(world, client, kind)
    return world, client


def page(world: World, client: Client, **fields: Any) -> dict[str, Any]:
    """Return one page of `q`."""
    runs = wire.pack_runs((0, *id, 1) for id in fields.pop("ids", ()))
    part = {"op": "peek", "queue": "q", "runs": len(runs) // wire.RUN.size, **fields}
    return done(world, client, client.request(part, runs))


def done(world: World, client: Client, answer: Any) -> dict[str, Any]:
    """Return an answer, which may take steps."""
    request = client.requests
    for _ in range(10_000):
        if answer is not None:
            found: dict[str, Any] = answer
            return found
        world.advance(10)
        answer = client.answer(request=request)
    raise AssertionError("it is never answered")


def pages(world: World, client: Client, count: int = 7, **fields: Any) -> list[dict[str, Any]]:
    """Return all messages of `q`, page by page."""
    shown: list[dict[str, Any]] = []
    after = b""
    while True:
        answer = page(world, client, count=count, after=after, **fields)
        shown += answer["messages"]
        after = answer.get("next", b"")
        if not after:
            return shown


def ids_of(shown: list[dict[str, Any]]) -> list[Id]:
    """Return the ids of what was shown."""
    return [(info["origin"], info["sequence"]) for info in shown]


def states(client: Client) -> dict[str, int]:
    """Return how many messages `q` has in each state."""
    counters = client.stats("q")
    names = ("ready", "delayed", "held", "begun")
    return {name.upper(): counters[name] for name in names if counters[name]}


def tally(shown: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many were shown in each state."""
    found: dict[str, int] = {}
    for info in shown:
        found[info["state"]] = found.get(info["state"], 0) + 1
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 7, 1_000])
def test_pages_show_every_message_once_with_its_body(kind: str, count: int) -> None:
    world, client = made(kind)
    shown = pages(world, client, count)
    assert tally(shown) == states(client)
    assert len(set(ids_of(shown))) == len(shown)
    assert len({info["body"] for info in shown}) == len(shown)
    for state, number in states(client).items():
        assert tally(pages(world, client, count, state=state)) == {state: number}
    assert pages(world, client, count, skip=0) == shown
    assert pages(world, client, 1_000, skip=4)[:3] == shown[4:7]


def test_a_delayed_message_says_when_it_is_ready() -> None:
    """By the wall clock, whenever it is asked."""
    world = World()
    client = world.hello()
    client.publish("q", b"now", b"later", delays=[0, 60_000])
    for _ in range(2):
        now, later = pages(world, client)
        assert "ready_unix_ms" not in now
        assert later["ready_unix_ms"] == later["published_unix_ms"] + 60_000
        world.advance(1_000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_found_by_its_id_in_every_state(kind: str) -> None:
    world, client = made(kind)
    shown = pages(world, client)
    wanted = random.Random(7).sample(shown, min(9, len(shown)))
    found = page(world, client, ids=[*ids_of(wanted), (1, 2**60), (77, 1)])["messages"]
    assert found == wanted


@pytest.mark.parametrize("kind", WAIT)
@pytest.mark.parametrize("seed", range(3))
def test_a_listing_goes_on_while_others_come_and_end(kind: str, seed: int) -> None:
    """What waits all the time is shown exactly once, whatever happens to the rest meanwhile."""
    world, client = made(kind)
    other, chance = world.hello(), random.Random(seed)
    before = ids_of(pages(world, client))
    shown: list[Id] = []
    gone: set[Id] = set()
    after = b""
    while True:
        answer = page(world, client, count=5, after=after)
        shown += ids_of(answer["messages"])
        after = answer.get("next", b"")
        if not after:
            break
        victim = chance.choice(before)
        if victim not in gone:
            gone.add(victim)
            assert bulk(world, other, "purge", [victim])["purged"] == 1
        other.publish("q", b"new", key="n", delay_ms=chance.choice([0, 10**6]))
        if chance.random() < 0.3:
            world.freeze()
        if chance.random() < 0.3:
            world.thaw()
    assert len(set(shown)) == len(shown)
    assert set(before) - gone <= set(shown)
    world.check()


def bulk(world: World, client: Client, op: str, ids: list[Id], **fields: Any) -> dict[str, Any]:
    """Return the value of a purge, move or redrive."""
    part = {"op": op, "queue": "q", "runs": len(ids), **fields}
    answer = client.request(part, wire.pack_runs((0, *id, 1) for id in ids))
    value: dict[str, Any] = done(world, client, answer)["value"]
    return value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("restart", [False, True])
def test_a_purge_of_ids_ends_those_that_wait_and_says_what_it_left(
    kind: str, restart: bool
) -> None:
    world, client = made(kind)
    shown = pages(world, client)
    wanted = random.Random(3).sample(shown, len(shown) // 2)
    value = bulk(world, client, "purge", [*ids_of(wanted), (1, 2**60)])
    kept = tally([info for info in wanted if info["state"] in ("HELD", "BEGUN")])
    assert value["purged"] == len(wanted) - sum(kept.values())
    assert value["left"] == {name.lower(): n for name, n in kept.items()} | {"missing": 1}
    gone = {id for id, info in zip(ids_of(wanted), wanted, strict=True) if info["state"] in WAITS}
    assert {*ids_of(pages(world, client))} == {*ids_of(shown)} - gone
    world.check()
    if restart:
        world.restart(clean=False, lose_unsynced=False)
        client = world.hello()
        world.advance(2_000)
        assert {*ids_of(pages(world, client))} == {*ids_of(shown)} - gone


WAITS = ("READY", "DELAYED")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["all", "some", "ids"])
@pytest.mark.parametrize("after", ["nothing", "restart", "forward"])
def test_a_move_takes_what_waits_and_says_what_it_left(kind: str, how: str, after: str) -> None:
    world, client = made(kind)
    shown = pages(world, client)
    waiting = [info for info in shown if info["state"] in WAITS]
    if how == "ids" and waiting:
        value = bulk(world, client, "move", ids_of(waiting), target="other")
    else:
        count = len(waiting) // 2 if how == "some" else 0
        value = bulk(world, client, "move", [], target="other", count=count)
    moved = len(waiting) // 2 if how == "some" else len(waiting)
    assert value["moved"] == moved
    kept = tally([info for info in shown if info["state"] not in WAITS])
    expected = {name.lower(): n for name, n in kept.items()} if how != "ids" or not waiting else {}
    assert value.get("left", {}) == expected
    if after == "restart":
        world.restart(clean=False, lose_unsynced=False)
        world.advance(2_000)
    elif after == "forward":
        world.free(world.core.synced)
        world.restart()
    client = client if after == "nothing" else world.hello()
    assert client.stats("other")["ready"] == moved
    got = client.receive_all("other")
    assert {m.id for m in got} <= {*ids_of(waiting)}
    assert {m.body for m in got} <= {info["body"] for info in waiting}
    if got:
        client.settle("ack", *got)
    world.check()


@pytest.mark.parametrize("named", [False, True])
def test_a_redrive_keeps_the_order_however_long_it_is(named: bool) -> None:
    world = World()
    client = world.hello()
    client.publish("q", *[b"%d" % n for n in range(900)])
    client.settle("reject", *client.receive_all("q"))
    ids = [message["sequence"] for message in client.peek("q.dlq")] if not named else range(900)
    value = done(world, client, client.redrive("q.dlq", [(1, n) for n in ids] if named else ()))
    assert value["value"] == {"redriven": 900}
    assert [m.body for m in client.receive_all("q")] == [b"%d" % n for n in range(900)]


def test_a_redrive_takes_delayed_ones_too_and_stops_at_what_the_source_may_hold() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a", b"b", b"c")
    client.settle("reject", *client.receive_all("q"))
    client.settle("nack", *client.receive_all("q.dlq"), delay_ms=10**6)
    client.set("q", max_messages=2)
    answer = done(world, client, client.redrive("q.dlq"))
    assert answer["value"] == {"redriven": 2, "left": {"full": 1}}
    client.purge("q")
    assert done(world, client, client.redrive("q.dlq"))["value"] == {"redriven": 1}


def test_what_was_moved_dies_and_is_redriven_where_it_is_now() -> None:
    world, client = made("fresh")
    bulk(world, client, "move", [], target="other", count=1)
    client.set("other", max_attempts=1)
    (message,) = client.receive_all("other")
    client.settle("nack", message)
    assert done(world, client, client.redrive("other.dlq"))["value"] == {"redriven": 1}
    assert client.receive_all("other")[0].id == message.id


def test_requests_of_one_turn_share_a_step_whatever_they_ask_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """20 peeks that pass over 1,500 messages of as many keys: no apply looks at more than a step."""
    monkeypatch.setattr(walks, "LOOKS", 400)
    world = World()
    client = world.hello()
    for at in range(0, 2_000, 1_000):
        client.publish("q", *[b"x"] * 1_000, keys=[f"k{n}" for n in range(at, at + 1_000)])
    added = [0]
    add = listing.Page.add

    def counting(self: listing.Page, *args: Any) -> bool:
        added[0] += 1
        return add(self, *args)

    monkeypatch.setattr(listing.Page, "add", counting)
    for _ in range(20):
        client.request({"op": "peek", "queue": "q", "skip": 1_500, "count": 1})
    assert added[0] <= 400
    most = 0
    while len(client.inbox) < 20:
        added[0] = 0
        world.run_job()
        most = max(most, added[0])
    assert most <= 400
    flood = [client.request({"op": "peek", "queue": "q", "skip": 1_500}) for _ in range(1_100)]
    assert flood[-1]["code"] == "busy"


@pytest.mark.parametrize("count", [3, 0])
def test_stats_go_by_pages_while_queues_come_and_go(count: int) -> None:
    world = World()
    client = world.hello()
    for n in range(40):
        client.publish(f"q{n}", b"a")
    shown: list[str] = []
    after: int | None = 0
    while after is not None:
        part = {"op": "stats", "after": after, "count": count}
        value = client.request(part)["value"]
        shown += value["queues"]
        after = value.get("next")
        if after is not None:
            client.delete(f"q{30 + after % 5}", force=True)
            client.publish(f"new{after}", b"a")
    assert len(set(shown)) == len(shown)
    assert {f"q{n}" for n in range(30)} <= set(shown)


def test_a_cursor_that_no_listing_gave_is_refused() -> None:
    _, client = made("fresh")
    answer = client.request({"op": "peek", "queue": "q", "after": b"elsewhere"})
    assert answer["code"] == "bad_value"
    assert client.request({"op": "peek", "queue": "q", "state": "DEAD"})["code"] == "bad_value"


class SlowReads(World):
    """What a listing wants read back is read when the test says so."""

    def __init__(self, **keywords: Any) -> None:
        self.asked: list[Any] = []
        super().__init__(**keywords)

    def _load(self, asked: Any) -> None:
        if isinstance(asked, walks.ReadForWalk):
            self.asked.append(asked)
        else:
            super()._load(asked)

    def read(self) -> None:
        """Do the oldest of these reads."""
        super()._load(self.asked.pop(0))


def test_a_run_that_was_read_back_while_a_listing_read_another_is_no_place_to_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no message left, and the listing stopped the broker."""
    monkeypatch.setattr(walks, "LOOKS", 10_000)
    world = SlowReads(segment_batches=1)
    client, other = world.hello(), world.hello()
    for at in range(40):
        client.publish("q", b"%d" % at)
    world.freeze()
    assert len(world.queue("q").group.lanes.default.cold) > 10
    client.send(client.frame([{"op": "peek", "queue": "q", "count": 1_000}], request=77))
    world.run_jobs()
    while not world.asked:
        world.run_job()
    other.settle("ack", *other.receive_all("q", 40))
    other.settle("ack", *other.receive_all("q", 40))
    client.publish("q", b"fresh")
    for _ in range(1_000):
        world.run_jobs()
        if (answer := client.answer(request=77)) is not None:
            break
        world.read()
    assert answer is not None
    assert answer["messages"][-1]["body"] == b"fresh"


def test_what_was_read_back_while_a_listing_read_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits in memory again, and no longer where it was found."""
    monkeypatch.setattr(walks, "LOOKS", 10_000)
    world = SlowReads(segment_batches=1)
    client = world.hello()
    bodies = [b"%d" % at for at in range(40)]
    for body in bodies:
        client.publish("q", body)
    world.freeze()
    client.send(client.frame([{"op": "peek", "queue": "q", "count": 1_000}], request=77))
    while not world.asked:
        world.run_job()
    world.thaw()
    world.read()
    world.run_jobs()
    answer = client.answer(request=77)
    assert [each["body"] for each in answer["messages"]] == bodies
