"""One message by its id, wherever it is: in a lane, in memory or not, delayed, or in a delivery.

None of this walks what is ready. A delivery is found by its token, not by what it has, so what is held or begun is
looked through once for all ids of a request, in steps.
"""

from __future__ import annotations

from collections.abc import Generator, Set
from typing import Any

from minibrokerd.core.durable.blocks import spans_at
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.extents import BadTail, Bodies
from minibrokerd.core.model.messages import Block, Item, Message, Span, State
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import UnknownRecord
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import take_delayed, wait
from minibrokerd.core.model.walks import GO_ON, Steps, Walk
from minibrokerd.log.seam import Record

Id = tuple[int, int]


def find_delivered(
    walk: Walk, queue: Queue, ids: Set[Id], found: dict[Id, tuple[State, Item]]
) -> Steps:
    """Enter into `found` which of these are held or begun."""
    for token in list(queue.group.deliveries):
        delivery = queue.group.deliveries.get(token)
        if delivery is None:
            continue
        items: list[Item] = [*delivery.spans.values(), *delivery.singles.values()]
        for item in items:
            for sequence in range(item.first, item.stop):
                id = item.block.origin, sequence
                if id in ids:
                    state = item.state if isinstance(item, Message) else State.HELD
                    found[id] = state, item
        if walk.is_used_up(1 + delivery.count()):
            yield GO_ON


def is_entering(store: Store, queue: Queue, id: Id) -> bool:
    """Return whether a message was published, and the log is not safe yet: in a moment it waits."""
    origin, sequence = id
    return queue.group.entering > 0 and any(
        entered is queue and block.origin == origin and 0 <= sequence - block.first < block.count
        for _, entered, block, _, _ in store.entering
    )


def block_at(
    bodies: Bodies, record: Record | None, queue: int, batch: int, place: Any
) -> Block | None:
    """Return the block of a record that was read back; None: it cannot be understood."""
    if record is None:
        return None
    try:
        return spans_at(bodies, record, queue, batch, place)[0].block
    except (UnknownRecord, BadTail, ValueError):
        return None


def read_one(walk: Walk, queue: Queue, sequence: int) -> Generator[bool, None, Block | None]:
    """Read the block of a message that left memory; None: it came back meanwhile, or cannot be read."""
    while True:
        run = queue.group.lanes.find(queue.home, sequence)
        if not isinstance(run, ColdRun):
            return None if run is None else run.block
        index = run.index_of(sequence)
        if run.batch > walk.store.synced:
            yield from walk.pause()
            continue
        shelf, batch, place = run.shelf, run.batch, run.shelf.place(index)
        yield from walk.read(shelf, index, index + 1)
        if walk.records is not None:
            return block_at(walk.store.bodies, walk.records[0], queue.number, batch, place)
        yield from walk.pause()


def take_waiting(store: Store, queue: Queue, origin: int, sequence: int) -> Item | None:
    """Take a message that waits out of its queue, as an item of its own; None: it is not there in memory."""
    item = queue.group.lanes.take_one(origin, sequence)
    if item is not None:
        return item
    item = queue.group.later.find(origin, sequence)
    if item is None:
        return None
    take_delayed(store, queue.group, item)
    if isinstance(item, Span):
        if sequence > item.first:
            before, item = item, item.cut(sequence)
            wait(store, queue.group, before)
        if item.stop > sequence + 1:
            wait(store, queue.group, item.cut(sequence + 1))
    return item


def take_cold(walk: Walk, queue: Queue, sequence: int) -> Generator[bool, None, Item | None]:
    """Take a message that left memory out of its lane, read back; None: it is not ready, or cannot be read."""
    if not isinstance(queue.group.lanes.find(queue.home, sequence), ColdRun):
        return None
    block = yield from read_one(walk, queue, sequence)
    item = queue.group.lanes.take_one(queue.home, sequence)  # it may have come back meanwhile
    if item is None and block is not None and end_cold(queue, sequence):
        queue.count_in(block, sequence, sequence + 1)
        item = Message(block, sequence, "", min(block.ready_at_ms, walk.store.now_ms))
    return item


def end_cold(queue: Queue, sequence: int) -> bool:
    """End a message that left memory; False: it is not there."""
    for lanes in queue.group.lanes.levels:
        run = lanes.default.run_of(sequence)
        if run is not None:
            cost = run.cost
            run.end(sequence, sequence + 1)
            queue.count_run_out(cost - run.cost)
            lanes.ready -= 1
            lane = lanes.default
            if not (run.left or lane.reading):  # else it leaves when what was read is there
                lane.cold.remove(run)
                lane.close_up()
                lanes.leave_if_empty(lane)
            return True
    return False
