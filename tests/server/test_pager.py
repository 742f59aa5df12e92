"""What a start reads back before the port opens (pager.py): each stretch once, and no more than it may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
from harness import World, cold_runs

from minibrokerd.bodies.shelves import stands
from minibrokerd.core.durable import paging
from minibrokerd.core.model import cold
from minibrokerd.core.model.effects import ReadBack
from minibrokerd.core.model.inputs import Freeze, Loaded
from minibrokerd.core.model.sums import Sums
from minibrokerd.engine import pager
from minibrokerd.engine.pager import Pager
from minibrokerd.log.seam import Log, Record
from minibrokerd.process.memory import Gauge


class Shell:
    """Loop, log and engine of a pager; `reads` are the places that were read, `later` those left to a thread."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.reads: list[int] = []
        self.later: list[int] = []
        self.timers: list[Callable[[], None]] = []
        self.rest_bytes: int | None = 0
        log, loop = cast(Log, self), cast(asyncio.AbstractEventLoop, self)
        self.pager = Pager(world.core, log, loop, self.apply, lambda: self.rest_bytes, 2**30)

    def read(self, segment: int, offsets: Sequence[int]) -> list[Record | None]:
        """Read, as the log does."""
        self.reads += offsets
        return [self.world.records[segment, offset] for offset in offsets]

    def run_in_executor(
        self, executor: None, read: Callable[..., Any], segment: int, offsets: Sequence[int]
    ) -> asyncio.Future[None]:
        """Take what is left to a thread."""
        self.later += offsets
        return asyncio.get_running_loop().create_future()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Note what is to be done later."""
        self.timers.append(callback)
        return callback

    def due(self) -> Iterator[Callable[[], None]]:
        """Yield what is to be done later, one at a time, and what comes of that."""
        while self.timers:
            (step,) = self.timers
            self.timers.clear()
            yield step

    def apply(self, command: Freeze | Loaded) -> None:
        """Apply and route, as the engine does."""
        world = self.world
        effects = world.core.apply(command, world.now_ms, world.unix_ms)
        self.pager.read(effects.reads)


def filled(count: int, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world with so many messages, of which all but two may leave memory, however little it is."""
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 2)
    monkeypatch.setattr(Sums, "large_bytes", 0)
    world = World(segment_batches=100)
    client = world.hello("p")
    for number in range(count):
        client.publish("q", b"%d" % number)
    return world


def cold_world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world with twelve messages, most of which left memory."""
    monkeypatch.setattr(cold, "CHUNK_FRAMES", 1)
    world = filled(12, monkeypatch)
    world.freeze()
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 8)
    return world


@pytest.mark.parametrize("fill_bytes", [2**20, 1, 0])
async def test_a_start_reads_every_stretch_once(
    monkeypatch: pytest.MonkeyPatch, fill_bytes: int
) -> None:
    """What the core asks for while a stretch is taken in is read by the same loop, not by a thread as well."""
    monkeypatch.setattr(pager, "FILL_BYTES", fill_bytes)
    world = cold_world(monkeypatch)
    shell = Shell(world)
    shell.pager.fill()
    assert bool(shell.reads) == (fill_bytes > 0)
    assert len(set(shell.reads + shell.later)) == len(shell.reads) + len(shell.later)
    lane = world.queue("q").group.lanes.default
    assert lane.reading == bool(shell.later)
    if fill_bytes > 1:
        assert len(lane.fresh) >= 8, "the first messages are there when the port opens"


async def test_a_start_reads_enough_while_hand_outs_wait_for_resumes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a client has begun is looked for among what is in memory when it resumes."""
    world = cold_world(monkeypatch)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 8)
    world.store.hold_until_ms = world.now_ms + 1_000
    Shell(world).pager.fill()
    assert len(world.queue("q").group.lanes.default.fresh) >= 8


async def test_a_start_on_very_many_queues_reads_for_some_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each read costs, however little it brings: 16,384 of them took two seconds before the port opened."""
    for module, name, value in ((paging, "AHEAD_MESSAGES", 1), (Sums, "large_bytes", 0)):
        monkeypatch.setattr(module, name, value)
    world = World(segment_batches=10_000)
    client = world.hello("p")
    for number in range(1_100):
        for _ in range(2):
            client.publish(f"q-{number}", b"x")
    world.freeze()
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 8)
    shell = Shell(world)
    shell.pager.fill()
    assert 500 < len(shell.reads) <= 1_024


def test_what_is_not_needed_soon_leaves_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any queue two messages may leave in a step; the steps end when nothing leaves any more."""
    for module, name, value in (
        (paging, "SMALL_BYTES", 0), (paging, "YOUNG_MS", 0),
        (paging, "EASY_LOOKS", 2), (pager, "MUCH_BYTES", 1),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    world = filled(7, monkeypatch)
    shell, left = Shell(world), []
    shell.pager.ease()
    shell.pager.ease()  # a second is over: there is one chain of steps
    for step in shell.due():
        left.append(sum(run.left for run in cold_runs(world.queue("q"))))
        step()
    assert left == [2, 4, 5]


def test_the_heap_is_trimmed_once_when_enough_came_and_nothing_comes_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trims: list[int] = []
    monkeypatch.setattr(pager, "give_back", lambda: trims.append(1))
    shell = Shell(World())
    shell.pager.wrote(pager.GIVE_BACK_BYTES - 1)
    for step in shell.due():
        step()
    assert not trims, "too little came"
    shell.pager.wrote(pager.LOOK_BYTES)
    steps = shell.due()
    next(steps)()
    shell.pager.wrote(pager.LOOK_BYTES)
    next(steps)()
    assert not trims, "something came a moment ago"
    for step in steps:
        step()
    assert trims == [1]
    shell.pager.wrote(pager.SECOND_BYTES)
    for step in shell.due():
        step()
    assert trims == [1]
    shell.pager.ease()
    shell.pager.ease()
    assert trims == [1, 1], "a second later less is enough, once"


def test_the_heap_is_trimmed_when_something_left_that_came_long_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A burst stays for a while: when it leaves, the heap was trimmed around it already."""
    trims: list[int] = []
    monkeypatch.setattr(pager, "give_back", lambda: trims.append(1))
    for module, name, value in (
        (paging, "SMALL_BYTES", 0), (pager, "MUCH_BYTES", 1), (pager, "SECOND_BYTES", 100),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    world = filled(7, monkeypatch)
    shell = Shell(world)
    shell.pager.ease()
    assert not trims, "nothing came that was written, and all of it is young"
    world.advance(paging.YOUNG_MS)
    for _ in range(2):
        shell.pager.ease()
        for step in shell.due():
            step()
    assert trims == [1]


def test_memory_is_full_of_what_one_message_keeps() -> None:
    """Of a publish that takes more than messages may, all has ended but one message; its bytes are still there."""
    world = World()
    client, shell = world.hello("p"), Shell(world)
    client.publish("q", *[b"x" * 1_000] * 100)
    got = client.receive_all("q", 100)
    client.settle("ack", *got[1:])
    shell.pager._gauge = Gauge(lambda: 0)  # the size of this process says nothing
    shell.pager.limit(150_000)  # half of it is for messages
    assert world.core.hot_bytes() < 75_000 < world.core.held_bytes()
    shell.pager.look()
    assert shell.pager.is_full
    client.settle("ack", got[0])
    assert world.core.held_bytes() == 0
    assert not shell.pager.is_full


async def test_what_is_read_to_be_copied_waits_until_it_is_known_where_copies_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a full disk: behind a batch that is on its way they could leave the rest of a segment empty."""
    world = cold_world(monkeypatch)
    shell = Shell(world)
    applied: list[Loaded] = []
    monkeypatch.setattr(shell.pager, "_apply", applied.append)
    queue = world.queue("q")
    lanes: Any = queue.group.lanes
    asked = ReadBack(queue, lanes, lanes.default.cold[0], forward_bytes=1_000)
    read: asyncio.Future[list[Record | None]] = asyncio.get_running_loop().create_future()
    read.set_result(shell.read(*stands(asked)))
    shell.rest_bytes = None
    shell.pager._done(asked, read)
    shell.pager.go_on()
    assert (applied, len(shell.pager.to_copy)) == ([], 1)
    shell.rest_bytes = 700
    shell.pager.go_on()
    assert ([loaded.rest_bytes for loaded in applied], shell.pager.to_copy) == ([700], [])
