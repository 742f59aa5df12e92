"""Messages that come back: into their lanes, or to wait until they are due."""

from __future__ import annotations

from collections.abc import Sequence

from minibrokerd.core.model.messages import Item, Message, State
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import Timer


def wait_or_ready(store: Store, queue: Queue, item: Item) -> None:
    """Put an item into its lane, or let it wait until its `ready_at_ms`."""
    if isinstance(item, Message):
        item.delivery = None
        item.timer = None
    if item.ready_at_ms > store.now_ms:
        if isinstance(item, Message):
            item.state = State.DELAYED
        timer = store.set_timer(_delay_over, queue, item.ready_at_ms)
        queue.group.delay(timer, item)
        return
    if isinstance(item, Message):
        item.state = State.READY
    queue.group.put_back(item)
    store.touch(queue.group)


def all_back(store: Store, queue: Queue, messages: Sequence[Message]) -> None:
    """Do what `wait_or_ready` does with each of these messages, at one look at the lanes for all that are due."""
    due = []
    for message in messages:
        if message.ready_at_ms > store.now_ms:
            wait_or_ready(store, queue, message)
            continue
        message.delivery = None
        message.timer = None
        message.state = State.READY
        due.append(message)
    if due:
        queue.group.put_all_back(due)
        store.touch(queue.group)


def _delay_over(store: Store, timer: Timer, queue: Queue) -> None:
    item = queue.group.undelay(timer)
    if item is None:
        return
    if isinstance(item, Message):
        item.state, item.timer = State.READY, None
    queue.group.put_back(item)
    store.touch(queue.group)
