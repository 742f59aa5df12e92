"""What a client may look at: counters of queues, and messages as they lie there. Nothing is changed."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import msgspec

from minibroker.contract import limits
from minibroker.contract.wire import pack_strings
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.messages import NO_TERMS, Block, Item, Message, State
from minibrokerd.core.model.places import Place, delivered_from, waiting_from
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.state import Refused, Store
from minibrokerd.core.model.walks import GO_ON, Steps, Walk
from minibrokerd.core.verbs.finding import block_at, find_delivered, read_one
from minibrokerd.core.verbs.runs import Run, read_ids

pack: Final = msgspec.msgpack.Encoder().encode
SHOW_LOOKS: Final = 10  # what a message that is shown counts
LOOKS_A_TURN: Final = 3_000  # deliveries are looked up anew after so many


def stats(store: Store, frame: Frame, part: Any) -> None:
    """Answer with counters: of one queue, or of the server and a page of the queues in the order of their numbers.

    A counter is a view of this moment, and may show what a crash takes back; but that a queue is gone is said only
    when its end is safe (docs/decisions/0012).
    """
    value: dict[str, Any] = {}
    if part.queue:
        queues = [store.queue(part.queue)]
    else:
        most = part.count or limits.MAX_STATS_QUEUES
        numbers = store.numbers_after(part.after, most + 1)
        if len(numbers) > most:
            del numbers[most:]
            value["next"] = numbers[-1]
        queues = [store.by_number[number] for number in numbers]
        value["server"] = {
            "epoch": store.epoch,
            "sessions": len(store.sessions),
            "connections": len(store.connections),
        }
    scope = store.connections[frame.connection].scope
    value["queues"] = {
        queue.name: {"number": queue.number, **queue.statistics()}
        for queue in queues
        if scope is None or scope.covers(queue.name)
    }
    store.reply(frame.connection, frame.request, store.nowhere.last_batch, value)


def peek(store: Store, frame: Frame, part: Any) -> None:
    """Show messages of every state, with their histories; also those that left memory."""
    queue = store.queue(part.queue)
    runs = read_ids(frame, part)
    if part.state and part.state not in State.__members__:
        raise Refused(
            "bad_value",
            f"there is no state {part.state!r}; there are {', '.join(State.__members__)}",
        )
    try:
        place = Place.unpack(part.after) if part.after else Place(0, queue.home, 0)
    except ValueError as error:
        raise Refused("bad_value", str(error)) from error
    walk = Walk(store, frame, changes=False)
    page = Page(part.count, part.skip)
    peeking = Peeking(walk, queue, page, State[part.state] if part.state else None)
    walk.begin(peeking.named(runs, place.sequence) if runs else peeking.all(place))


class Page:
    """One answer while it is filled."""

    def __init__(self, count: int, skip: int) -> None:
        self._count = count
        self._skip = skip
        self._room = limits.DELIVERY_BYTES
        self._infos: list[bytes] = []
        self._bodies: list[tuple[Block, int, int]] = []

    def add(self, info: dict[str, Any], block: Block, sequence: int) -> bool:
        """Add a message; False: it belongs to the next page."""
        if self._skip:
            self._skip -= 1
            return True
        packed = pack(info)
        self._room -= len(packed) + block.bytes_of(sequence, sequence + 1)
        if len(self._infos) == self._count or (self._room < 0 and self._infos):
            return False
        self._infos.append(packed)
        self._bodies.append((block, sequence, sequence + 1))
        return True

    def send(self, walk: Walk, rests_on: int, then: Place | None) -> None:
        """Answer with the page; `then` is where the next one begins."""
        if walk.connection not in walk.store.connections:
            return
        header: dict[str, Any] = {"op": "messages", "request": walk.request}
        header["count"] = len(self._infos)
        if then is not None:
            header["next"] = then.pack()
        columns = pack_strings(self._infos)
        walk.store.send(walk.connection, rests_on, header, columns, self._bodies)


class Peeking:
    """The walk of one peek."""

    def __init__(self, walk: Walk, queue: Queue, page: Page, state: State | None) -> None:
        self._walk = walk
        self._queue = queue
        self._page = page
        self._state = state

    def all(self, place: Place) -> Steps:
        """Show what there is from a place on."""
        then: Place | None = place
        if not place.token:
            then = yield from self._waiting(place)
        if then is not None and then.token:
            then = yield from self._delivered(then)
        self._page.send(self._walk, self._queue.last_batch, then)

    def _waiting(self, place: Place) -> Generator[bool, None, Place | None]:
        """Show what waits; return where to go on."""
        queue = self._queue
        while True:
            found, looks = waiting_from(queue, place, self._state)
            if not found:
                return Place(1, 0, 0)
            if self._walk.is_used_up(looks):
                yield GO_ON
                found = waiting_from(queue, place, self._state)[0]
            for state, item in found:
                if isinstance(item, ColdRun):
                    next_place = yield from self._cold(item, place)
                    if next_place is None:
                        break  # it is not where it was: look again from the same place on
                else:
                    next_place = self._item(state, 0, item, place)
                if next_place.token:  # the page is full
                    return next_place._replace(token=0)
                place = next_place
                if isinstance(item, ColdRun):
                    break  # it was read: anything may have changed meanwhile
                if self._walk.is_used_up(SHOW_LOOKS * (item.stop - item.first)):
                    yield GO_ON
                    break  # likewise

    def _item(self, state: State, token: int, item: Item, place: Place) -> Place:
        """Show an item from a place on; return the place behind it, with a token of 1 if the page is full."""
        origin = item.block.origin
        same = (place.token, place.origin) == (token, origin)
        for sequence in range(max(item.first, place.sequence if same else 0), item.stop):
            info = describe(state, item, sequence, self._walk.store)
            if not self._page.add(info, item.block, sequence):
                return Place(1, origin, sequence)
        return Place(0, origin, item.stop)

    def _cold(self, run: ColdRun, place: Place) -> Generator[bool, None, Place | None]:
        """Show some of a run: what is read in one go; None: it could not be read where it was said to be."""
        queue, walk = self._queue, self._walk
        first = max(place.sequence if place.origin == queue.home else 0, run.bounds(run.at)[0])
        index = max(run.index_of(first), run.at)
        live = next(run.live(first, run.stop), None)
        if live is None:
            return Place(0, queue.home, run.stop)
        index = max(run.index_of(live[0]), index)
        if run.batch > walk.store.synced:
            yield from walk.pause()
            return None
        high = run.chunk_from(index)
        bounds = [run.bounds(at) for at in range(index, high)]
        shelf, batch, bodies = run.shelf, run.batch, walk.store.bodies
        yield from walk.read(shelf, index, high)
        if walk.records is None:
            yield from walk.pause()
            return None
        for (low, stop), record in zip(bounds, walk.records, strict=True):
            block = block_at(bodies, record, queue.number, batch, shelf.place(index))
            index += 1
            for sequence in range(max(low, first), stop):
                item = queue.lanes.find(queue.home, sequence)
                if item is None:
                    continue
                info, shown = _cold_info(walk.store, item, block, sequence, queue.home)
                if not self._page.add(info, shown, sequence):
                    return Place(1, queue.home, sequence)
            if walk.is_used_up(SHOW_LOOKS * (stop - low)):
                yield GO_ON
        return Place(0, queue.home, bounds[-1][1])

    def _delivered(self, place: Place) -> Generator[bool, None, Place | None]:
        """Show what is held or begun; return where to go on."""
        if self._state in (State.READY, State.DELAYED):
            return None
        while True:
            looks = 0
            for state, token, item in delivered_from(self._queue, place):
                looks += SHOW_LOOKS * (item.stop - item.first)
                if self._state in (None, state):
                    behind = self._item(state, token, item, place)
                    if behind.token:
                        return behind._replace(token=token)
                place = Place(token, item.block.origin, item.stop)
                if looks > LOOKS_A_TURN:
                    break
            else:
                return None
            if self._walk.is_used_up(looks):
                yield GO_ON

    def named(self, runs: list[Run], start: int) -> Steps:
        """Show the messages of runs that are in the queue, in their order, from the one with this index on."""
        queue, walk = self._queue, self._walk
        ids = [(origin, first + i) for _, origin, first, count in runs for i in range(count)]
        delivered: dict[tuple[int, int], tuple[State, Item]] | None = None
        for index in range(start, len(ids)):
            origin, sequence = ids[index]
            state, item = State.READY, queue.lanes.find(origin, sequence)
            if item is None:
                state, item = State.DELAYED, queue.later.find(origin, sequence)
            if item is None:
                if delivered is None:
                    delivered = {}
                    yield from find_delivered(walk, queue, set(ids), delivered)
                state, item = delivered.get((origin, sequence), (state, None))
            if isinstance(item, ColdRun):
                block = yield from read_one(walk, queue, sequence)
                item = queue.lanes.find(origin, sequence)
                if item is None or block is None:
                    continue  # it was taken meanwhile
                info, shown = _cold_info(walk.store, item, block, sequence, origin)
            elif item is not None:
                info, shown = describe(state, item, sequence, walk.store), item.block
            else:
                continue
            if self._state in (None, state) and not self._page.add(info, shown, sequence):
                self._page.send(walk, queue.last_batch, Place(0, 0, index))
                return
            if walk.is_used_up(SHOW_LOOKS):
                yield GO_ON
        self._page.send(walk, queue.last_batch, None)


def _cold_info(
    store: Store, item: Item | ColdRun, block: Block | None, sequence: int, origin: int
) -> tuple[dict[str, Any], Block]:
    if not isinstance(item, ColdRun):  # it was read back meanwhile
        return describe(State.READY, item, sequence, store), item.block
    if block is None:
        nothing = Block(
            origin, sequence, 1, store.bodies.nothing, (0, None), 0, None, 0, 0, 0, 0, 0
        )
        return _info_of(State.READY, nothing, "", sequence) | {"damaged": True}, nothing
    return _info_of(State.READY, block, "", sequence), block


def _info_of(state: State, block: Block, key: str, sequence: int) -> dict[str, Any]:
    info = {
        "origin": block.origin,
        "sequence": sequence,
        "state": state.name,
        "encoding": block.encoding_of(sequence),
        "key": key,
        "published_unix_ms": block.unix_ms,
    }
    if block.terms is not NO_TERMS:
        info |= {name: value for name, value in block.terms._asdict().items() if value}
    return info


def describe(state: State, item: Item, sequence: int, store: Store) -> dict[str, Any]:
    """Return what peek says of one message; times are unix ms."""
    info = _info_of(state, item.block, item.key, sequence)
    if state is State.DELAYED:
        info["ready_unix_ms"] = store.unix_ms + item.ready_at_ms - store.now_ms
    if isinstance(item, Message):
        failed, expired, worker_lost = item.attempts
        info |= {
            "attempts": {"failed": failed, "expired": expired, "worker_lost": worker_lost},
            "redriven": item.redriven,
            "history": [msgspec.structs.asdict(entry) for entry in item.history],
            "history_dropped": item.dropped,
        }
        if item.dead:
            info["dead"] = True
    return info
