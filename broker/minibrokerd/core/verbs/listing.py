"""What a client may look at: counters of queues, and messages as they lie there. Nothing is changed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final

from minibroker.contract import limits
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.deliveries import Run
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.messages import Block, Item, State
from minibrokerd.core.model.places import Found, Place, cold_from, delivered_from, waiting_from
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.refusals import Refused
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.walks import GO_ON, Steps, Walk
from minibrokerd.core.verbs.due import Due
from minibrokerd.core.verbs.finding import block_at, find_delivered, read_one
from minibrokerd.core.verbs.runs import read_ids
from minibrokerd.core.verbs.showing import SHOW_LOOKS, Page, describe, info_of

ORDERS: Final = ("", "due")
DELAYED_ONLY: Final = ("", State.DELAYED.name)
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
        queue.name: {"number": queue.number, **queue.statistics(), **_more(store, queue)}
        for queue in queues
        if scope is None or scope.covers(queue.name)
    }
    store.reply(frame.connection, frame.request, store.nowhere.last_batch, value)


def _more(store: Store, queue: Queue) -> dict[str, Any]:
    single, client = queue.group.single, store.owners.client_of(store, queue)
    more = _circuit(store, queue) | ({} if single is None else {"active": single.said()})
    if queue.group.retained is not None:
        name, said = queue.group.retained.said()
        more[name] = said
    return more if client is None else more | {"exclusive": client}


def _circuit(store: Store, queue: Queue) -> dict[str, Any]:
    circuit, circuits = queue.group.circuit, queue.group.key_circuits
    if circuit is not None:
        return {"circuit": circuit.said(store)}
    if circuits is not None:
        return {"key_circuits": {"open": len(circuits.open), "failing": circuits.failing}}
    return {}


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
    if part.order not in ORDERS or (part.order and (runs or part.state not in DELAYED_ONLY)):
        raise Refused("bad_value", "the order `due` is of delayed messages, and of no ids")
    if part.unique_key and (runs or part.order):
        raise Refused("bad_value", "a unique key names one message: no ids, and no order")
    walk = Walk(store, frame, changes=False)
    page = Page(part.count, part.skip)
    if part.unique_key:
        holder = queue.unique.newest(part.unique_key) if queue.unique is not None else None
        runs = [(0, *holder, 1)] if holder is not None else []
    if part.order:
        walk.begin(Due(walk, queue, page).steps(place, part.count + part.skip))
        return
    peeking = Peeking(walk, queue, page, State[part.state] if part.state else None)
    is_named = bool(runs or part.unique_key)
    walk.begin(peeking.named(runs, place.sequence) if is_named else peeking.all(place))


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
            for at, (state, item) in enumerate(found):
                if isinstance(item, ColdRun):
                    if at and at == len(found) - 1:
                        break  # what stands in the middle of it may be cut off
                    next_place = yield from self._cold(item, place, self._stop(found[at + 1 :]))
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

    def _stop(self, found: Sequence[Found]) -> int:
        """Return where a run ends for now: at what follows, which may stand in the middle of it."""
        for _, item in found[:1]:
            if not isinstance(item, ColdRun) and item.block.origin == self._queue.home:
                return item.first
        return 2**64

    def _item(self, state: State, token: int, item: Item, place: Place) -> Place:
        """Show an item from a place on; return the place behind it, with a token of 1 if the page is full."""
        origin = item.block.origin
        same = (place.token, place.origin) == (token, origin)
        for sequence in range(max(item.first, place.sequence if same else 0), item.stop):
            info = describe(state, item, sequence, self._walk.store)
            if not self._page.add(info, item.block, sequence):
                return Place(1, origin, sequence)
        return Place(0, origin, item.stop)

    def _cold(self, run: ColdRun, place: Place, until: int) -> Generator[bool, None, Place | None]:
        """Show some of a run: what is read in one go; None: it could not be read where it was said to be."""
        queue, walk = self._queue, self._walk
        first = cold_from(run, place.sequence if place.origin == queue.home else 0)
        if first == run.stop:
            return Place(0, queue.home, run.stop)
        index = run.index_of(first)
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
            for sequence in range(max(low, first), min(stop, until)):
                item = queue.group.lanes.find(queue.home, sequence)
                if item is None:
                    continue
                info, shown = _cold_info(walk.store, item, block, sequence, queue.home)
                if not self._page.add(info, shown, sequence):
                    return Place(1, queue.home, sequence)
            if walk.is_used_up(SHOW_LOOKS * (stop - low)):
                yield GO_ON
        return Place(0, queue.home, min(bounds[-1][1], until))

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
            state, item = State.READY, queue.group.lanes.find(origin, sequence)
            if item is None:
                state, item = State.DELAYED, queue.group.later.find(origin, sequence)
            if item is None:
                if delivered is None:
                    delivered = {}
                    yield from find_delivered(walk, queue, set(ids), delivered)
                state, item = delivered.get((origin, sequence), (state, None))
            if isinstance(item, ColdRun):
                block = yield from read_one(walk, queue, sequence)
                item = queue.group.lanes.find(origin, sequence)
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
        return info_of(State.READY, nothing, "", sequence) | {"damaged": True}, nothing
    return info_of(State.READY, block, "", sequence), block
