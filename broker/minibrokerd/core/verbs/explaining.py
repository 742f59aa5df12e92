"""`explain`: where one message is, and why it is not running. Nothing is changed.

It is looked for in the queue that was asked, in the dead-letter queue of that, where it was published, and then
everywhere, in steps.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from minibroker.contract.limits import DLQ_SUFFIX
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.deliveries import Consumer
from minibrokerd.core.model.endings import Ending
from minibrokerd.core.model.explaining import Why, why_dead, why_delayed, why_held, why_waits
from minibrokerd.core.model.inputs import Frame, Scope
from minibrokerd.core.model.key_settings import setting_of
from minibrokerd.core.model.keys import BUSY, PAUSED
from minibrokerd.core.model.messages import Item, State
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.refusals import Refused
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.walks import GO_ON, Steps, Walk
from minibrokerd.core.verbs.finding import Id, find_delivered, is_entering
from minibrokerd.core.verbs.runs import read_ids


def explain(store: Store, frame: Frame, part: Any) -> None:
    """Answer why a message is not running, since when, and until when."""
    asked = store.queue(part.queue) if part.queue else None
    runs = read_ids(frame, part)
    if len(runs) != 1 or runs[0][3] != 1:
        raise Refused("bad_value", f"one message is explained at a time; {part.runs} runs came")
    walk = Walk(store, frame, changes=False)
    scope = store.connections[frame.connection].scope
    walk.begin(_Explaining(walk, asked, runs[0][1:3], scope).steps())


class _Explaining:
    """The walk of one explain."""

    def __init__(self, walk: Walk, asked: Queue | None, id: Id, scope: Scope | None) -> None:
        self._walk = walk
        self._store = walk.store
        self._asked = asked
        self._id = id
        self._scope = scope

    def steps(self) -> Steps:
        """Look everywhere, and answer."""
        for queue in self._places():
            why = yield from self._in(queue)
            if why is not None:
                self._answer(queue, queue.name, why)
                return
        ending = yield from self._ending()
        if ending is not None and self._may_see(ending.queue):
            why = Why("ENDED", ending.reason, ending.unix_ms, 0, ending.by)
            self._answer(self._store.queues.get(ending.queue), ending.queue, why)
            return
        self._answer_unknown()

    def _ending(self) -> Generator[bool, None, Ending | None]:
        for found in self._store.endings.find(*self._id):
            if found is not None:
                return found
            if self._walk.is_used_up(1):
                yield GO_ON
        return None

    def _places(self) -> Iterator[Queue]:
        """Yield every queue that it may be in, each once, the likely ones first."""
        store = self._store
        home = store.by_number.get(self._id[0])
        near = [
            queue for each in (self._asked, home) if each for queue in (each, _dlq(store, each))
        ]
        seen = set()
        for queue in (*near, *list(store.queues.values())):
            if queue is not None and queue.number not in seen and self._may_see(queue.name):
                seen.add(queue.number)
                yield queue

    def _may_see(self, name: str) -> bool:
        return self._scope is None or self._scope.covers(name)

    def _in(self, queue: Queue) -> Generator[bool, None, Why | None]:
        """Return why it is not running, if it is in this queue."""
        if self._walk.is_used_up(1):
            yield GO_ON
        if not queue.count():
            return None
        origin, sequence = self._id
        waits = queue.group.lanes.find(origin, sequence)
        if waits is not None:
            has_key = yield from self._who_has(queue, waits)
            why = why_waits(self._store, queue, waits, self._consumers(queue), has_key)
            return why_dead(why, waits) if self._is_dead(queue) else why
        later = queue.group.later.find(origin, sequence)
        if later is not None:
            return why_delayed(self._store, queue, later)
        if is_entering(self._store, queue, self._id):
            return Why("ENTERING", "not_synced")
        found: dict[Id, tuple[State, Item]] = {}
        yield from find_delivered(self._walk, queue, {self._id}, found)
        item = found[self._id][1] if found else None
        delivery = queue.group.deliveries.get(item.token) if item is not None else None
        return why_held(self._store, delivery, item) if item and delivery else None

    def _who_has(self, queue: Queue, waits: Item | ColdRun) -> Generator[bool, None, str]:
        """Return which message of a closed key is in work, and who has it; empty: the key is open."""
        keys = queue.group.keys
        closed = keys.why_closed(waits.key) if keys and not isinstance(waits, ColdRun) else None
        if closed is None or isinstance(waits, ColdRun):
            return ""
        if closed.reason == PAUSED:
            return setting_of(self._store, queue, waits.key).by
        if closed.reason != BUSY:
            return ""
        for delivery in list(queue.group.deliveries.values()):
            for item in delivery.items():
                if item.key == waits.key:
                    by = why_held(self._store, delivery, item).by or "a client without a name"
                    return f"{item.block.origin}-{item.first} at {by}"
            if self._walk.is_used_up(1 + delivery.count()):
                yield GO_ON
        return ""

    def _is_dead(self, queue: Queue) -> bool:
        """Whether it was looked for where it died; asked of the DLQ itself, it is one of the messages there."""
        return queue.is_dlq and queue is not self._asked

    def _consumers(self, queue: Queue) -> list[Consumer]:
        store = self._store
        self._walk.is_used_up(len(store.connections))
        return [
            consumer
            for connection in store.connections.values()
            for consumer in (*connection.consumers.values(), *connection.receives.values())
            if consumer.queue_number == queue.number
        ]

    def _answer_unknown(self) -> None:
        """It is nowhere: its id was used, or never."""
        origin, sequence = self._id
        store = self._store
        home = store.by_number.get(origin)
        used = origin < store.next_queue_number if home is None else sequence < home.next_sequence
        used = used and bool(origin)
        if home is not None and not self._may_see(home.name):
            home, used = None, False
        ended = "deleted" if origin not in store.by_number else "ended"
        why = Why("ENDED", ended if used else "unknown")
        self._answer(home, home.name if home is not None else "", why)

    def _answer(self, queue: Queue | None, name: str, why: Why) -> None:
        rests_on = (queue if queue is not None else self._store.nowhere).last_batch
        self._walk.reply(rests_on, {"queue": name, **why._asdict()})


def _dlq(store: Store, queue: Queue) -> Queue | None:
    return store.queues.get(queue.name + DLQ_SUFFIX)
