"""`cancel_messages`: messages end that nobody wants done any more, whether they wait or a worker has them.

One that waits ends as by a purge. One that is held or begun is taken out of its delivery: what its worker says of
it later is lost, and the worker is told at once (`cancelled`), so that it can stop.
The end stands in the log before anybody is told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

from minibroker.contract.ends import Outcome
from minibroker.contract.wire import pack_runs
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.deliveries import Delivery, Run
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.kept import CANCELLED
from minibrokerd.core.model.messages import MEMORY, Item, State
from minibrokerd.core.model.noting import end_runs
from minibrokerd.core.model.places import Place, delivered_from, waiting_from
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.refusals import Refused
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import change, state_in
from minibrokerd.core.model.walks import GO_ON, Steps, Walk
from minibrokerd.core.verbs.attempts import drop_delivery
from minibrokerd.core.verbs.bulk import TAKE_LOOKS, ids_of, line_looks, note
from minibrokerd.core.verbs.dooming import wake_doomed
from minibrokerd.core.verbs.finding import Id, end_cold, find_delivered, is_entering, take_waiting
from minibrokerd.core.verbs.runs import read_ids

COLD_MESSAGES: Final = 1_000  # of a run, at a time
LOOKS: Final = 1_000  # of a queue, before it is looked at anew
REMEMBERED_MS: Final = 3_600_000  # for a worker that comes back, that it was cancelled
MOST_PASSES: Final = 5  # over a queue whose messages move while they are looked for


class Filter(NamedTuple):
    """Which messages: those for which all holds that was asked for; empty: it does not matter."""

    key: str
    state: str
    client: str  # of those that a worker of this name has

    def wants(self, store: Store, state: State, item: Item, delivery: Delivery | None) -> bool:
        """Whether an item is one of them."""
        if self.key and item.key != self.key:
            return False
        if self.state and state.name != self.state:
            return False
        if not self.client:
            return True
        session = store.sessions.get(delivery.session) if delivery is not None else None
        return session is not None and session.client == self.client


def cancel_messages(store: Store, frame: Frame, part: Any) -> None:
    """End messages: those of the runs, or those that a filter is about."""
    queue = store.queue(part.queue)
    runs = read_ids(frame, part)
    if part.state and part.state not in State.__members__:
        raise Refused("bad_value", f"there is no state {part.state!r}")
    wanted = Filter(part.key, part.state, part.client)
    if bool(runs) == any(wanted):
        text = "name messages, or a key, a state or a client of those to cancel; a purge ends all"
        raise Refused("bad_value", text)
    walk = Walk(store, frame, changes=True)
    cancelling = _Cancelling(walk, queue)
    walk.begin(cancelling.named(ids_of(runs)) if runs else cancelling.filtered(wanted))


class _Cancelling:
    """The walk of one cancel."""

    def __init__(self, walk: Walk, queue: Queue) -> None:
        self._walk = walk
        self._store = walk.store
        self._queue = queue
        connection = walk.store.connections[walk.connection]
        self._by = connection.session.client
        self._ended: list[Run] = []  # not noted yet
        self._logged: list[Run] = []  # of these, those that are to be recorded
        self._taken: dict[int, list[Run]] = defaultdict(list)  # by session, which is to be told
        self._waited = self._running = 0

    def named(self, ids: list[Id]) -> Steps:
        """End the messages of these ids."""
        missing: list[Id] = []
        for id in ids:
            while is_entering(self._store, self._queue, id):
                self._write()
                yield from self._walk.pause()
            if not self._end_waiting(*id):
                missing.append(id)
            if self._walk.is_used_up(TAKE_LOOKS + line_looks(self._queue)):
                self._write()
                yield GO_ON
        self._write()
        found: dict[Id, tuple[State, Item]] = {}
        if missing:
            yield from find_delivered(self._walk, self._queue, set(missing), found)
        left = 0
        for id in missing:
            # What was found may have gone on since, and come back to its place.
            token = found[id][1].token if id in found else 0
            left += not (self._end_delivered(token, *id) or self._end_waiting(*id))
        self._finish({"left": {"missing": left}} if left else {})

    def filtered(self, wanted: Filter) -> Steps:
        """End all that a filter is about: again and again, while something of it was still on its way.

        What a worker gets in the place of what was cancelled is not meant, but where a key names it.
        """
        newest = 2**64 if wanted.key else max(self._queue.group.deliveries, default=0)
        for _ in range(MOST_PASSES):
            before = self._waited + self._running
            if not wanted.client:
                yield from self._all_waiting(wanted)
            yield from self._all_delivered(wanted, newest)
            if before == self._waited + self._running:
                break
        self._finish({})

    def _all_waiting(self, wanted: Filter) -> Steps:
        place: Place | None = Place(0, self._queue.home, 0)
        state = State[wanted.state] if wanted.state else None
        while place is not None and state not in (State.HELD, State.BEGUN):
            found, looks = waiting_from(self._queue, place, state)
            place = None
            for at, item in found:
                if isinstance(item, ColdRun):
                    ids = [] if wanted.key else list(islice(_cold_ids(item), COLD_MESSAGES))
                    behind = ids[-1][1] + 1 if len(ids) == COLD_MESSAGES else item.stop
                    place = Place(0, self._queue.home, behind)
                else:
                    ids = list(_ids(item)) if wanted.wants(self._store, at, item, None) else []
                    place = Place(0, item.block.origin, item.stop)
                for id in ids:
                    self._end_waiting(*id)
                looks += len(ids) * TAKE_LOOKS
                if len(ids) == COLD_MESSAGES or looks > LOOKS:
                    break
            if self._walk.is_used_up(looks):
                self._write()
                yield GO_ON

    def _all_delivered(self, wanted: Filter, newest: int) -> Steps:
        place: Place | None = Place(0, 0, 0)
        while place is not None:
            looks, ids = 1, list[tuple[int, Id]]()
            start, place = place, None
            for state, token, item in delivered_from(self._queue, start):
                if token > newest:
                    break
                looks += item.stop - item.first
                delivery = self._queue.group.deliveries[token]
                if wanted.wants(self._store, state, item, delivery):
                    ids += ((token, id) for id in _ids(item))
                if looks > LOOKS:
                    place = Place(token, item.block.origin, item.stop)
                    break
            for token, id in ids:
                self._end_delivered(token, *id)
            if self._walk.is_used_up(looks + TAKE_LOOKS * len(ids)):
                self._write()
                yield GO_ON

    # -- one message ------------------------------------------------------------------------------

    def _end_waiting(self, origin: int, sequence: int) -> bool:
        """End a message that waits, in memory or not; False: it does not."""
        item = take_waiting(self._store, self._queue, origin, sequence)
        if item is not None:
            self._queue.count_out(item.block, item.first, item.stop)
            if item.block.durability != MEMORY:
                self._logged.append((0, origin, sequence, 1))
        elif origin == self._queue.home and end_cold(self._queue, sequence):
            self._logged.append((0, origin, sequence, 1))
        else:
            return False
        self._ended.append((0, origin, sequence, 1))
        self._waited += 1
        return True

    def _end_delivered(self, token: int, origin: int, sequence: int) -> bool:
        """End a message that is held or begun under a token; False: it is not any more."""
        store, queue = self._store, self._queue
        delivery = queue.group.deliveries.get(token)
        for item in delivery.take(origin, sequence, 1) if delivery is not None else ():
            if isinstance(item, int):
                continue
            assert delivery is not None
            state = state_in(item, delivery)
            change(store, queue.group, (item,), state, None, delivery)
            if state is State.BEGUN:
                is_logged = item.block.durability != MEMORY
                key, until_unix_ms = (origin, sequence), store.unix_ms + REMEMBERED_MS
                store.kept.put(store, CANCELLED, key, (token,), until_unix_ms, logged=is_logged)
            queue.count_out(item.block, item.first, item.stop)
            run = (token, origin, sequence, 1)
            self._ended.append(run)
            if item.block.durability != MEMORY:
                self._logged.append(run)
            self._taken[delivery.session].append(run)
            if not delivery:
                drop_delivery(store, queue, delivery)
            self._running += 1
            return True
        return False

    # -- what is said -----------------------------------------------------------------------------

    def _write(self) -> None:
        """Record what has ended, and tell the workers that had some of it, once that is safe."""
        store, queue = self._store, self._queue
        end_runs(store, queue, Outcome.CANCELLED, self._ended, self._logged, self._by)
        for number, taken in self._taken.items():
            tell(store, number, queue, taken, self._by)
        self._ended, self._logged, self._taken = [], [], defaultdict(list)

    def _finish(self, more: dict[str, Any]) -> None:
        self._write()
        queue, count = self._queue, self._waited + self._running
        queue.group.counters["cancelled"] += count
        self._store.touch(queue.group)
        if queue.is_dlq:
            wake_doomed(self._store, queue)
        note(self._walk, "messages_cancelled", count, queue=queue.name)
        value = {"cancelled": count, "running": self._running, **more}
        self._walk.reply(queue.last_batch, value)


def tell(store: Store, session: int, queue: Queue, runs: list[Run], by: str) -> None:
    """Tell a client which of its messages were cancelled, and by whom."""
    known = store.sessions.get(session)
    if known is None or known.connection is None:
        return  # it is told when it comes back
    header = {"op": "cancelled", "queue": queue.name, "by": by, "runs": len(runs)}
    store.send(known.connection, queue.last_batch, header, pack_runs(runs))


def _ids(item: Item) -> Iterator[Id]:
    for sequence in range(item.first, item.stop):
        yield item.block.origin, sequence


def _cold_ids(run: ColdRun) -> Iterator[Id]:
    for first, stop in run.live(run.start, run.stop):
        for sequence in range(first, stop):
            yield run.queue, sequence
