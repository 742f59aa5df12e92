"""protocol.md, 5.2 and `recall`: what a busy consumer holds goes to one that has nothing to do, never to both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from core_client import Client, Delivered, Id
from harness import World

from minibroker.contract import wire
from minibroker.contract.wire import RUN
from minibrokerd.core.model.group import Group
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import Timer
from minibrokerd.core.verbs import recalling

SECOND_MS = 1_000
TICK_MS = 8


class Worker:
    """A consumer that works off one message after the other, as the library does: begin, run, ack."""

    def __init__(self, world: World, name: str, prefetch: int, *, accepts: bool = True) -> None:
        self.world = world
        self.client = world.hello(name)
        if accepts:
            accept(self.client)
        self.client.consume("q", prefetch, lease_ms=300 * SECOND_MS)
        self.buffer: list[Delivered] = []
        self.current: Delivered | None = None
        self.until_ms = 0
        self.begun: list[Id] = []
        self.done: dict[Id, int] = {}  # when each was done
        self.given_back = 0

    def step(self) -> None:
        """Do what is to be done at this time."""
        self._read()
        if self.current is not None and self.world.now_ms >= self.until_ms:
            self.client.settle("ack", self.current)
            self.done[self.current.id] = self.world.now_ms
            self.current = None
            self._read()
        if self.current is None and self.buffer:
            self.current = self.buffer.pop(0)
            self.begun.append(self.current.id)
            self.client.begin(self.current)
            self.until_ms = self.world.now_ms + int(self.current.body)

    def _read(self) -> None:
        for frame in [each for each in self.client.inbox if each["op"] == "recall"]:
            self.client.inbox.remove(frame)
            named = {
                (run[0], run[1], run[2] + i) for run in frame["runs_of"] for i in range(run[3])
            }
            back = [m for m in self.buffer if (m.token, *m.id) in named]
            self.buffer = [m for m in self.buffer if m not in back]
            self.given_back += len(back)
            if back:
                give_back(self.client, back)
        self.buffer += self.client.messages()


def accept(client: Client) -> None:
    """Say that a client knows the frame."""
    client.send(client.frame([{"op": "accept", "recalls": 1}]))


def give_back(client: Client, messages: Sequence[Delivered]) -> Any:
    """Give back what was asked for."""
    return client.settle("release", *messages, recalled=1)


def work(world: World, workers: Sequence[Worker], until_ms: int) -> None:
    """Let workers work until a time."""
    while world.now_ms < until_ms:
        for worker in workers:
            worker.step()
        world.advance(TICK_MS)


def recalls(client: Client) -> list[tuple[int, ...]]:
    """Take the recalls out of an inbox; return their runs."""
    found = [frame for frame in client.inbox if frame["op"] == "recall"]
    client.inbox = [frame for frame in client.inbox if frame["op"] != "recall"]
    return [run for frame in found for run in frame["runs_of"]]


@pytest.fixture(autouse=True)
def _columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client of a test read the runs of a recall."""
    take = Client.take_frame

    def take_frame(self: Client, data: bytes) -> None:
        take(self, data)
        if self.inbox[-1]["op"] == "recall":
            frame = wire.read_payload(data[wire.LENGTH.size :])
            self.inbox[-1]["runs_of"] = list(RUN.iter_unpack(frame.columns))

    monkeypatch.setattr(Client, "take_frame", take_frame)


def test_short_jobs_do_not_wait_behind_a_long_one() -> None:
    """Two workers with a prefetch of 4, a job of 60 s, seven of 1 s: all of these are done within 8 s."""
    world = World()
    workers = [Worker(world, name, 4) for name in ("one", "other")]
    start_ms = world.now_ms
    workers[0].client.publish("q", b"60000", *[b"1000"] * 7)
    work(world, workers, start_ms + 10 * SECOND_MS)
    done = {id: at_ms for worker in workers for id, at_ms in worker.done.items()}
    assert sorted(done) == [(1, sequence) for sequence in range(1, 8)]
    assert max(done.values()) - start_ms <= 8 * SECOND_MS
    work(world, workers, start_ms + 62 * SECOND_MS)
    began = Counter(id for worker in workers for id in worker.begun)
    assert began == Counter({(1, sequence): 1 for sequence in range(8)}), "each ran once"
    counters = workers[0].client.stats("q")
    assert (counters["acked"], counters["released"]) == (8, 0)
    assert counters["recalled"] == sum(worker.given_back for worker in workers) == 3
    world.check()


def test_a_client_that_does_not_know_the_frame_is_not_asked() -> None:
    """An older one would take it for a breach of the protocol."""
    world = World()
    workers = [Worker(world, "old", 4, accepts=False), Worker(world, "new", 4)]
    workers[0].client.publish("q", b"20000", *[b"1000"] * 7)
    work(world, workers, 15 * SECOND_MS)
    assert "recall" not in {frame["op"] for frame in workers[0].client.inbox}
    assert len(workers[1].done) == 4


def busy_and_idle(held: int, prefetch: int = 0) -> tuple[World, Client, list[Delivered], Client]:
    """Return a world, a client that holds so many and works on one more, and one that has nothing to do."""
    world = World()
    busy, idle = world.hello("busy"), world.hello("idle")
    accept(busy)
    busy.consume("q", held + 1)
    busy.publish("q", *[b"x"] * (held + 1))
    messages = busy.messages()
    assert len(messages) == held + 1
    busy.begin(messages[0])
    idle.consume("q", prefetch or held)
    return world, busy, messages[1:], idle


def test_the_newer_half_is_asked_for_after_a_moment() -> None:
    """And again only when that was answered, or a second has passed."""
    world, busy, messages, _ = busy_and_idle(7)
    world.advance(recalling.LOOK_MS - TICK_MS)
    assert recalls(busy) == []
    world.advance(2 * recalling.LOOK_MS)
    asked = recalls(busy)
    assert asked == [(messages[0].token, 1, 4, 4)]
    world.advance(recalling.ASK_AGAIN_MS - 3 * recalling.LOOK_MS)
    assert recalls(busy) == []
    world.advance(3 * recalling.LOOK_MS)
    assert recalls(busy) == asked


def test_what_was_just_handed_out_is_not_asked_for() -> None:
    """It may be begun in this moment; it is asked for when it was held from one look to the next."""
    world = World()
    busy, idle = world.hello("busy"), world.hello("idle")
    accept(busy)
    busy.consume("q", 9)
    busy.publish("q", b"held")
    idle.consume("q", 9)
    world.advance(recalling.LOOK_MS - 2 * TICK_MS)
    busy.settle("ack", *busy.messages())
    busy.publish("q", b"new")
    (new,) = busy.messages()
    world.advance(4 * TICK_MS)
    assert recalls(busy) == []
    world.advance(recalling.LOOK_MS)
    assert recalls(busy) == [new.run]


def test_never_more_than_the_idle_could_take() -> None:
    world, busy, _, _ = busy_and_idle(9, prefetch=2)
    world.advance(3 * recalling.LOOK_MS)
    assert sum(run[3] for run in recalls(busy)) == 2


def test_what_comes_back_is_as_it_was_and_goes_to_the_idle_one() -> None:
    """Uncharged, unmarked, in its place, at once also the second time; not to the one that gave it back."""
    world, busy, messages, idle = busy_and_idle(3)
    for round in range(2):
        answer = give_back(busy if not round else idle, messages[1:])
        assert answer["results"] == [{"lost": 0}]
        got = (idle if not round else busy).messages()
        assert [(m.id, m.attempt, m.marked) for m in got] == [
            ((1, 2), 1, False),
            ((1, 3), 1, False),
        ]
        messages = [messages[0], *got]
        world.advance(2 * recalling.LOOK_MS)
        accept(idle)
    counters = busy.stats("q")
    assert (counters["released"], counters["recalled"]) == (0, 4)
    world.check()


def test_the_order_of_what_went_back_and_what_waits_is_kept() -> None:
    _world, busy, messages, idle = busy_and_idle(3)
    idle.cancel()
    idle.publish("q", b"new")
    give_back(busy, messages)
    busy.cancel()
    assert [each["sequence"] for each in busy.peek("q")[:4]] == [1, 2, 3, 4]


def test_what_was_begun_or_settled_meanwhile_is_left() -> None:
    """A release of it is what it always was; of what has ended it is lost."""
    world, busy, messages, idle = busy_and_idle(3)
    busy.settle("ack", messages[0])
    busy.begin(messages[1])
    answer = give_back(busy, messages)
    assert answer["results"] == [{"lost": 1}]
    counters = busy.stats("q")
    assert (counters["released"], counters["recalled"]) == (1, 1)
    assert sorted(m.id for m in idle.messages()) == [(1, 2), (1, 3)]
    world.check()


def test_nothing_is_asked_for_while_something_is_ready_or_nobody_is_idle() -> None:
    world, busy, _, _idle = busy_and_idle(4, prefetch=1)
    busy.publish("q", *[b"y"] * 3)
    world.advance(3 * recalling.LOOK_MS)
    assert recalls(busy) == [], "the idle one holds something, and more waits"
    assert world.store.queues["q"].group.recall is None, "nobody looks"


def test_one_that_gave_back_gets_what_is_published_then() -> None:
    """It stands aside for a moment only."""
    world, busy, messages, idle = busy_and_idle(3)
    give_back(busy, messages)
    world.disconnect(idle)
    world.advance(2 * recalling.LOOK_MS)
    assert len(busy.messages()) == 3


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note when a group is looked at."""
    times, look = list[int](), recalling._look

    def noted(store: Store, timer: Timer, group: Group) -> None:
        times.append(store.now_ms)
        look(store, timer, group)

    monkeypatch.setattr(recalling, "_look", noted)
    return times


def test_nobody_looks_while_all_in_line_hold_something(looks: list[int]) -> None:
    """As a worker does on a long job, with room for more: nothing changes before it says something."""
    world = World()
    client = world.hello()
    client.consume("q", 10, lease_ms=12 * 3_600 * SECOND_MS)
    client.publish("q", b"x", b"y", b"z")
    messages = client.messages()
    client.begin(messages[0])
    world.advance(3_600 * SECOND_MS)
    assert len(looks) <= 2


@pytest.mark.parametrize("how", ["begin", "ack"])
def test_one_that_is_idle_later_is_found(how: str, looks: list[int]) -> None:
    """It held one for 20 s, and begins it or has done it; what the other holds is asked for then."""
    world, busy, messages, idle = busy_and_idle(1, prefetch=3)
    idle.publish("q", b"held")
    (message,) = idle.messages()
    world.advance(20 * SECOND_MS)
    assert recalls(busy) == []
    assert len(looks) <= 3
    idle.begin(message) if how == "begin" else idle.settle("ack", message)
    world.advance(3 * recalling.LOOK_MS)
    assert recalls(busy) == [(messages[0].token, 1, 1, 1)]


def test_one_that_gave_back_and_has_done_some_is_found(looks: list[int]) -> None:
    """While it works on as much as then nobody looks; when it has done some of that it is idle."""
    world, busy, messages, idle = busy_and_idle(3)
    accept(idle)
    give_back(busy, messages[1:])
    others = idle.messages()
    busy.begin(messages[0])
    world.advance(20 * SECOND_MS)
    assert len(looks) <= 4
    busy.settle("ack", messages[0])
    world.advance(3 * recalling.LOOK_MS)
    assert recalls(idle) == [(others[1].token, *others[1].id, 1)]


@pytest.mark.parametrize("how", ["disconnect", "restart", "delete"])
def test_it_ends_with_the_consumer_the_queue_and_the_server(how: str) -> None:
    world, busy, _messages, idle = busy_and_idle(3)
    world.advance(3 * recalling.LOOK_MS)
    if how == "disconnect":
        world.disconnect(busy)
        assert len(idle.messages()) == 3
    elif how == "restart":
        world.restart(clean=False)
        world.advance(2 * SECOND_MS)
        assert len(world.hello().receive_all("q")) == 3
    else:
        busy.cancel()
        idle.cancel()
        busy.delete("q", force=True)
        world.advance(SECOND_MS)
    world.advance(SECOND_MS)
    world.check()
