"""Until when messages may begin: a time to live ends at one instant for all messages of a block.

So a block has one timer, whatever became of its messages: where they are is found when it fires. A block without a
time to live, as nearly all are, is not known here at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from minibrokerd.core.model.messages import Item, Message
from minibrokerd.core.model.wheel import Timer, Wheel

if TYPE_CHECKING:
    from minibrokerd.core.model.extents import Extent
    from minibrokerd.core.model.group import Group
    from minibrokerd.core.model.messages import Block
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.state import Store


class Lifetime(Timer):
    """The end of a block, `expires_ms` (log time), as a timer that fires then.

    `queues` are the numbers of those that may have some of it, `tokens` the deliveries that had; `item` is the
    wheel that it is in.
    """

    __slots__ = ("block", "expires_ms", "queues", "tokens")

    def __init__(
        self, block: Block, expires_ms: int, queues: tuple[int, ...], wheel: Wheel
    ) -> None:
        super().__init__(wheel)
        self.block = block
        self.expires_ms = expires_ms
        self.queues = queues
        self.tokens: tuple[int, ...] = ()


class Lifetimes(dict["Block", Lifetime]):
    """The ends of blocks that have messages in memory.

    `overdue` have some that are to be ended; `expired` counts by queue, since an operator was told.
    """

    def __init__(self) -> None:
        super().__init__()
        # Those of each extent: a routed message has a block in each of its queues, and one extent.
        self.of_extent: dict[Extent, tuple[Block, ...]] = {}
        self.overdue: deque[Lifetime] = deque()
        self.expired: dict[str, int] = {}


def limit(store: Store, block: Block, expires_ms: int, queues: tuple[int, ...]) -> Lifetime:
    """Let a block end at a time, that is among messages now or in a moment; return its end."""
    found = store.sums.lifetimes.get(block)
    if found is None:
        known = store.sums.lifetimes
        found = known[block] = Lifetime(block, expires_ms, queues, store.wheel)
        known.of_extent[block.extent] = (*known.of_extent.get(block.extent, ()), block)
        store.wheel.schedule(found, expires_ms)
    elif queues[0] not in found.queues:
        found.queues += queues
    return found


def limit_again(store: Store, queue: Queue, block: Block) -> None:
    """Let a block that a start found in a queue end when it would have: by the wall clock, never later than that.

    A clock that was set back meanwhile gives it no more than its whole time to live.
    """
    ttl_ms = block.terms.ttl_ms
    left_ms = min(max(block.unix_ms + ttl_ms - store.unix_ms, 0), ttl_ms)
    limit(store, block, store.now_ms + left_ms, (queue.number,))


def inherit(store: Store, old: Block, new: Block) -> None:
    """Let a block that has messages of another one now end when that does."""
    found = store.sums.lifetimes.get(old)
    if found is not None:
        limit(store, new, found.expires_ms, found.queues).tokens = found.tokens


def forget(lifetimes: Lifetimes, block: Block) -> None:
    """Note that no message of a block is in memory any more, nor of those that share its extent."""
    for each in lifetimes.of_extent.pop(block.extent, ()):
        found = lifetimes.pop(each, None)
        if found is not None:
            found.item.cancel(found)


def see_waiting(store: Store, group: Group, items: Iterable[Item]) -> None:
    """Note that items wait in a group: those whose time is over already came back too late."""
    for item in items:
        found = store.sums.lifetimes.get(item.block)
        if found is None:
            continue
        if group.queue.number not in found.queues:
            found.queues += (group.queue.number,)
        if found.expires_ms <= store.now_ms and may_expire(group.queue, item):
            store.sums.lifetimes.overdue.append(found)


def may_expire(queue: Queue, item: Item) -> bool:
    """Whether the end of its block is that of an item: what has died once, or was sent back, has none."""
    if queue.is_dlq:
        return False
    return not isinstance(item, Message) or not (item.dead or item.redriven)
