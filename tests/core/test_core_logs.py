"""protocol.md 5.20, retained logs in the core: archived in order, fed to groups and read, whatever files do."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from core_client import Client, Delivered
from harness import World

from minibrokerd.core.model.retained import OFFSET_BITS, Archive, RetainedLog
from minibrokerd.core.verbs import feeding
from support.hypothesis_budget import seeds


def asked(client: Client, op: str, **fields: Any) -> Any:
    """Return the value that a request is answered with, or the error; None: it has to wait."""
    answer = client.request({"op": op, **fields})
    return answer if answer is None else answer.get("value", answer)


def make_log(client: Client, name: str = "log", **settings: int | str) -> None:
    """Make a log."""
    value = client.set(name, kind="log", **settings)
    assert value["op"] == "reply", value


def group(client: Client, name: str = "g", log: str = "log", **start: Any) -> str:
    """Make a group; return the name of its queue."""
    queue: str = asked(client, "log_group_set", queue=log, group=name, **start)["queue"]
    return queue


def seek(client: Client, name: str = "g", log: str = "log", **start: Any) -> Any:
    """Move a group."""
    return asked(client, "log_group_seek", queue=log, group=name, **start)


def read(client: Client, log: str = "log", **fields: Any) -> Any:
    """Return the answer to a read; None: it has to wait."""
    return client.request({"op": "log_read", "queue": log, **fields})


def everything(client: Client, log: str = "log") -> list[tuple[int, str | None, bytes]]:
    """Return offset, key and body of all that can be read."""
    found: list[tuple[int, str | None, bytes]] = []
    at = 0
    while True:
        answer = read(client, log, start="offset", at=at)
        found += [(each.offset, each.key, each.raw) for each in answer["messages"]]
        if answer["next"] == at or not answer["count"]:
            return found
        at = answer["next"]


def bodies(client: Client, log: str = "log") -> list[bytes]:
    """Return the bodies of all that can be read."""
    return [body for _, _, body in everything(client, log)]


def offsets(messages: list[Delivered]) -> list[int]:
    """Return the offsets of messages that a group got."""
    return [message.sequence & (1 << OFFSET_BITS) - 1 for message in messages]


def log_of(world: World, name: str = "log") -> RetainedLog:
    """Return a log of the core."""
    log = world.queue(name).group.retained
    assert isinstance(log, RetainedLog)
    return log


def archives(world: World) -> list[Archive]:
    """Return what the files were asked to append."""
    return [work for work in world.files.asked if isinstance(work, Archive)]


def ascend(world: World) -> None:
    """What was archived ascends, over all that was asked for."""
    at = 0
    for work in archives(world):
        for piece in work.pieces:
            assert piece.first >= at, "the files take nothing that comes before what they have"
            at = piece.first + piece.count


# -- a life without trouble -----------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["sync", "lazy"])
def test_a_message_is_archived_read_and_given_to_each_group(durability: str) -> None:
    """A publish is there for readers, and once for each group; what it took in the log is free."""
    world = World()
    client = world.hello()
    make_log(client, durability=durability)
    one, two = group(client, "one"), group(client, "two", start="next")
    client.publish("log", b"a", b"b", key="k", encoding=1)
    client.publish("log", b"c", keys=["x"], encodings=[0])
    assert everything(client) == [(0, "k", b"a"), (1, "k", b"b"), (2, "x", b"c")]
    assert world.queue("log").live_bytes == 0
    for queue in (one, two):
        got = client.receive_all(queue)  # keys take turns
        assert sorted((m.body, m.key, m.encoding) for m in got) == [
            (b"a", "k", 1), (b"b", "k", 1), (b"c", "x", 0),
        ]  # fmt: skip
        client.settle("ack", *got)
        assert world.queue(queue).count() == 0
    world.check()


def test_groups_retry_and_dead_letter_alone() -> None:
    """A nack goes back in this group; what is used up goes to its DLQ, and from there back."""
    world = World()
    client = world.hello()
    make_log(client)
    queue, other = group(client), group(client, "h")
    client.set(queue, max_attempts=1, retry_delay_ms=1_000)
    client.publish("log", b"a", b"b")
    first, second = client.receive_all(queue)
    client.settle("nack", first)
    client.settle("ack", second)
    (dead,) = client.peek(queue + ".dlq")
    assert dead["body"] == b"a"
    client.redrive(queue + ".dlq", count=10)
    world.run_jobs()
    (again,) = client.receive_all(queue)
    assert again.id == first.id
    assert [m.body for m in client.receive_all(other)] == [b"a", b"b"]
    world.check()


def test_a_group_is_bounded_by_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is fed than the window, and more as soon as something ended, whatever ended it."""
    monkeypatch.setattr(feeding, "WINDOW_MESSAGES", 3)
    world = World()
    client = world.hello()
    make_log(client)
    queue = group(client)
    for number in range(20):
        client.publish("log", b"%d" % number)
    seen: list[int] = []
    while got := client.receive_all(queue):
        assert world.queue(queue).count() <= 20
        seen += [int(m.body) for m in got]
        client.settle("ack", *got)
    assert seen == list(range(20))


@pytest.mark.parametrize("how", ["purge", "cancel", "expire", "reject"])
def test_a_waiting_consumer_is_fed_whatever_ended_the_window(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window full of what waits for its retry holds the group; when that ends, by no worker, the next is fed."""
    monkeypatch.setattr(feeding, "WINDOW_MESSAGES", 2)
    monkeypatch.setattr(feeding, "FETCH_BYTES", 1)
    world = World()
    client = world.hello()
    make_log(client)
    queue = group(client)
    client.set(queue, retry_delay_ms=3_600_000, message_ttl_ms=10_000 if how == "expire" else 0)
    for number in range(4):
        client.publish("log", b"%d" % number)
    got = client.receive_all(queue)
    assert [m.body for m in got] == [b"0", b"1"]
    if how == "reject":
        client.consume(queue, prefetch=10)
        client.settle("reject", *got)
    else:
        client.settle("nack", *got)
        client.consume(queue, prefetch=10)
    assert how == "reject" or not client.messages()
    if how == "purge":
        client.purge(queue)
    elif how == "cancel":
        client.cancel_messages(queue, *[m.id for m in got])
    elif how == "expire":
        world.advance(20_000)
    world.run_jobs()
    world.files.retry()
    assert [m.body for m in client.messages()] == [b"2", b"3"]
    world.check()


def test_keys_take_turns_and_the_archive_ascends() -> None:
    """Lanes of keys hand out in turn; the files get all in the order of offsets."""
    world = World()
    client = world.hello()
    make_log(client)
    world.files.lag = True
    for number in range(50):
        client.publish("log", b"%d" % number, key="abc"[number % 3] if number % 7 else "")
    world.files.lag = False
    world.files.catch_up()
    ascend(world)
    assert bodies(client) == [b"%d" % number for number in range(50)]
    world.check()


@pytest.mark.parametrize("seed", range(20))
def test_lazy_and_sync_are_mixed(seed: int) -> None:
    """A lazy publish is behind the sync of others, however durability is changed meanwhile."""
    chance = random.Random(seed)
    world = World()
    client = world.hello()
    make_log(client)
    world.auto_sync = False
    number = 0
    for _ in range(60):
        what = chance.choice(
            ("publish", "publish", "publish", "settings", "sync", "close", "work", "one")
        )
        if what == "publish":
            client.publish("log", b"%d" % number, key=chance.choice(("", "a", "b")))
            number += 1
        elif what == "settings":
            client.set("log", durability=chance.choice(("sync", "lazy")))
        elif what == "sync":
            world.sync()
        elif what == "close":
            world.close_batch()
        elif what == "one" and world.closed:
            world.sync_one()
        world.files.lag = what == "work"
    world.files.lag = False
    world.sync()
    world.files.catch_up()
    world.auto_sync = True
    ascend(world)
    client.inbox.clear()
    assert bodies(client) == [b"%d" % each for each in range(number)]


def test_what_is_cold_is_archived() -> None:
    """A backlog that left memory while the files were slow comes to them in order."""
    world = World()
    client = world.hello()
    make_log(client)
    world.files.lag = True
    for number in range(10):
        client.publish("log", b"%d" % number)
    world.restart(clean=False)
    world.files.lag = True
    world.freeze()
    client = world.hello()
    client.publish("log", b"10")
    world.files.lag = False
    world.files.catch_up()
    ascend(world)
    assert bodies(client) == [b"%d" % number for number in range(11)]
    world.check()


@pytest.mark.parametrize("digests", [False, True])
def test_a_digest_has_the_backlog_of_a_log(digests: bool) -> None:
    """A start from side indexes finds what was not archived."""
    world = World()
    world.digests = digests
    client = world.hello()
    make_log(client)
    queue = group(client)
    world.files.lag = True
    for number in range(10):
        client.publish("log", b"%d" % number, key="ab"[number % 2])
    world.restart(clean=False)
    world.files.lag = False
    world.files.catch_up()
    client = world.hello()
    client.publish("log", b"10")
    ascend(world)
    assert bodies(client) == [b"%d" % number for number in range(11)]
    assert sorted(int(m.body) for m in client.receive_all(queue)) == list(range(11))
    world.check()


# -- crashes at every point -----------------------------------------------------------------------


@pytest.mark.parametrize("lose", [False, True])
@pytest.mark.parametrize("point", range(8))
def test_a_crash_at_every_point_skips_and_repeats_nothing(point: int, lose: bool) -> None:
    """After each step of an archive and a feed: what was confirmed is read once, and given to the group."""
    world = World()
    client = world.hello()
    make_log(client)
    group(client)
    world.files.lag, world.auto_sync = True, False
    client.publish("log", b"a", b"b")
    world.sync()
    client.publish("log", b"c")
    files = world.files

    def work(do: Callable[[], object]) -> None:
        if files.waiting:
            do()

    steps: list[Callable[[], object]] = [
        world.close_batch,
        lambda: work(files.work),
        world.close_batch,
        world.sync,
        lambda: work(files.work),
        world.sync,
        lambda: work(files.begin),  # appended, and the core was not told
    ]
    for step in steps[:point]:
        step()
    world.restart(clean=False, lose_unsynced=lose)
    world.files.lag, world.auto_sync = False, True
    world.files.catch_up()
    client = world.hello()
    client.publish("log", b"d")
    found = everything(client)
    assert [offset for offset, _, _ in found] == sorted({offset for offset, _, _ in found})
    assert [body for _, _, body in found if body != b"c"] == [b"a", b"b", b"d"]
    got = client.receive_all("log@g")
    assert [m.body for m in got] == [body for _, _, body in found]
    assert offsets(got) == [offset for offset, _, _ in found]
    world.check()


@pytest.mark.parametrize("seed", seeds(20))
def test_random_lives_with_crashes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishes, feeds, acks, seeks and crashes, with slow and failing files, in small segments."""
    monkeypatch.setattr(feeding, "WINDOW_MESSAGES", 5)
    monkeypatch.setattr(feeding, "FETCH_BYTES", 200)
    chance = random.Random(seed)
    world = World(segment_batches=chance.choice((1, 3)))
    world.digests = chance.random() < 0.5
    _Life(world, chance).run()


class _Life:
    """What one life of a log saw: each body with its offset, and what groups got since their last seek."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world, self.chance = world, chance
        self.number = 0
        self.confirmed: set[bytes] = set()
        self.sent: dict[bytes, Any] = {}
        self.client = world.hello()
        make_log(self.client)
        self.got: dict[str, list[bytes]] = {group(self.client, name): [] for name in "gh"}
        self.waits: dict[int, list[bytes]] = {}
        world.auto_sync = False

    def run(self) -> None:
        for _ in range(150):
            getattr(self, self.chance.choice(self.WHAT))()
            self.world.check()
        self.world.files.lag = False
        self.world.files.errors.clear()
        for _ in range(3):
            self.world.sync()
            self.world.files.retry()
        self.look()
        self.world.auto_sync = True
        found = everything(self.client)
        assert [o for o, _, _ in found] == sorted({o for o, _, _ in found})
        in_log = [body for _, _, body in found]
        assert len(in_log) == len(set(in_log))
        assert self.confirmed <= set(in_log)
        assert set(in_log) <= set(self.sent)
        for queue, got in self.got.items():
            self.world.advance(10_000_000)  # what waits for its retry, or is held by who is gone
            while messages := self.client.receive_all(queue):
                got += [m.body for m in messages]
                self.client.settle("ack", *messages)
                self.world.files.retry()
            assert set(in_log) <= set(got), queue
        assert not self.world.files.failed

    def look(self) -> None:
        for frame in self.client.inbox:
            if frame["op"] == "confirm" and frame["sequence"] in self.waits:
                self.confirmed.update(self.waits.pop(frame["sequence"]))
            for message in frame["messages"] if frame["op"] == "deliver" else ():
                self.got[message.queue].append(message.body)
        self.client.inbox.clear()

    def publish(self) -> None:
        some = []
        for _ in range(self.chance.choice((1, 1, 3))):
            some.append(b"%d" % self.number)
            self.number += 1
        for body in some:
            self.sent[body] = None
        fields = {"keys": [self.chance.choice(("", "a", "b")) for _ in some]}
        answer = self.client.publish("log", *some, **(fields if self.chance.random() < 0.5 else {}))
        if answer is not None:
            assert answer["op"] == "confirm"
            self.confirmed.update(some)
        else:
            self.waits[self.client.sequence] = some

    def receive(self) -> None:
        queue = self.chance.choice(sorted(self.got))
        answer = self.client.receive(queue, 3)
        self.look()
        if answer is not None and answer["op"] == "deliver" and answer["messages"]:
            self.got[queue] += [m.body for m in answer["messages"]]
            op = self.chance.choice(("ack", "ack", "nack", "release"))
            self.client.settle(op, *answer["messages"])

    def seek(self) -> None:
        if self.chance.random() < 0.3:
            name = self.chance.choice("gh")
            self.client.request(
                {"op": "log_group_seek", "queue": "log", "group": name, "start": "first"}
            )

    def sync(self) -> None:
        self.world.sync()
        self.look()

    def one(self) -> None:
        self.world.close_batch()
        if self.world.closed:
            self.world.sync_one()
        self.look()

    def lag(self) -> None:
        self.world.files.lag = not self.world.files.lag
        self.world.files.catch_up()

    def work(self) -> None:
        if self.world.files.waiting:
            self.world.files.work()

    def fail(self) -> None:
        if self.chance.random() < 0.3:
            self.world.files.errors.append(OSError("the disk does not do it"))

    def retry(self) -> None:
        self.world.files.retry()

    def forward(self) -> None:
        self.world.sync()
        upto = self.world.segment_end(self.chance.randint(0, self.world.core.synced))
        self.world.free(upto)
        self.look()

    def freeze(self) -> None:
        self.world.freeze()

    def crash(self) -> None:
        if self.chance.random() < 0.5:
            return
        self.look()
        self.waits.clear()
        if self.chance.random() < 0.3 and self.world.files.waiting:
            self.world.files.begin()
        clean = self.chance.random() < 0.2
        self.world.restart(clean=clean, lose_unsynced=self.chance.random() < 0.5)
        self.client = self.world.hello()
        self.world.files.catch_up()

    WHAT = (
        *("publish",) * 6, *("receive",) * 5, *("sync",) * 3, *("one",) * 2, "lag", *("work",) * 3, "seek", "fail",
        "retry", "forward", "freeze", "crash",
    )  # fmt: skip
