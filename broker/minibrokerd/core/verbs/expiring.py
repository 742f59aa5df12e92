"""A time to live has ended: what waits of the messages is dropped, or dies, by the setting `on_expired`.

A message that is begun runs to its end, and if it comes back after its own, it expires then. One that is held was
not begun: it is taken back, and its client is told as of one that was cancelled. What has died stays in the
dead-letter queue, and what was redriven out of it has no end any more: a person wants it done.

The timer of a block says when to look for its messages, and a delivery has none whose time is over, whether the
timer has fired or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from minibroker.contract.ends import Outcome
from minibrokerd.core.model.deliveries import Delivery, Run
from minibrokerd.core.model.group import Group
from minibrokerd.core.model.lifetimes import Lifetime, may_expire
from minibrokerd.core.model.messages import MEMORY, Block, Item, Message, State, singles_of
from minibrokerd.core.model.noting import end_runs
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import AttemptMeta
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import change, take_delayed
from minibrokerd.core.model.wheel import Timer
from minibrokerd.core.verbs.attempts import drop_delivery
from minibrokerd.core.verbs.bulk import line_looks
from minibrokerd.core.verbs.cancelling import tell
from minibrokerd.core.verbs.moving import dead_letter
from minibrokerd.core.verbs.takers import LOOK_AGAIN_MS, is_awaiting

CAUSE: Final = "ttl_expired"
# In one apply: a message that expires is one, a place in the middle of a long line some.
LOOKS: Final = 1_000
FEW_TOKENS: Final = 50
TELL_MS: Final = 10_000  # an operator hears of what expired so long after the first of it


def alive(store: Store, group: Group, items: list[Item], token: int) -> list[Item]:
    """Return those of items that are to be delivered under a token whose time is not over; end the others."""
    ended = []
    for item in items:
        found = store.sums.lifetimes.get(item.block)
        if found is None:
            continue
        if found.expires_ms <= store.now_ms and may_expire(group.queue, item):
            ended.append(item)
        elif token not in found.tokens:
            found.tokens = (*_live(store, found.tokens), token)
    if not ended:
        return items
    if group.keys is not None:
        for item in ended:
            if item.key:
                group.keys.untook(item)
    expire(store, group.queue, ended)
    return [item for item in items if item not in ended]


def _live(store: Store, tokens: tuple[int, ...]) -> Iterable[int]:
    """Return those of tokens that deliveries still have, where there are more than a few."""
    return tokens if len(tokens) < FEW_TOKENS else filter(store.deliveries.__contains__, tokens)


def expire_some(store: Store) -> None:
    """End what waits of blocks whose time is over, as far as a step goes."""
    looks, overdue = 0, store.sums.lifetimes.overdue
    while overdue and looks < LOOKS:
        lifetime = overdue.popleft()
        if store.sums.lifetimes.get(lifetime.block) is not lifetime:
            continue
        for number in lifetime.queues:
            queue = store.by_number.get(number)
            if queue is None or queue.is_dlq:
                continue
            if is_awaiting(store, queue):  # it may have begun in time
                store.set_timer(_look_again, lifetime, store.now_ms + LOOK_AGAIN_MS)
                looks += 1
                continue
            items = [*_taken(store, queue, lifetime.block)]
            items += _taken_back(store, queue, lifetime)
            looks += 1 + (1 + line_looks(queue)) * sum(item.stop - item.first for item in items)
            expire(store, queue, items)


def _look_again(store: Store, timer: Timer, lifetime: Lifetime) -> None:
    store.sums.lifetimes.overdue.append(lifetime)


def _taken(store: Store, queue: Queue, block: Block) -> Iterator[Item]:
    """Take what waits of a block out of a queue."""
    group = queue.group
    for lanes in group.lanes.levels:
        for item in lanes.items_of(block):
            if may_expire(queue, item):
                lanes.take_out(item)
                yield item
    for item in group.later.items_of(block):
        if may_expire(queue, item):
            take_delayed(store, group, item)
            yield item


def _taken_back(store: Store, queue: Queue, lifetime: Lifetime) -> Iterator[Item]:
    """Take what is held of a block, and not begun, out of its deliveries."""
    for token in lifetime.tokens:
        delivery = queue.group.deliveries.get(token)
        if delivery is None:
            continue
        held = [item for item in _held(delivery, lifetime.block) if may_expire(queue, item)]
        runs: list[Run] = []
        for item in held:
            origin, count = item.block.origin, item.stop - item.first
            for _ in delivery.take(origin, item.first, count):
                pass
            change(store, queue.group, (item,), State.HELD, None, delivery)
            runs.append((token, origin, item.first, count))
            if isinstance(item, Message):
                item.delivery = None
            yield item
        if runs:
            tell(store, delivery.session, queue, runs, "its time to live")
        if not delivery:
            drop_delivery(store, queue, delivery)


def _held(delivery: Delivery, block: Block) -> list[Item]:
    held: list[Item] = [
        message for message in delivery.alone.values() if message.state is State.HELD
    ]
    return [item for item in [*delivery.spans.values(), *held] if item.block is block]


def expire(store: Store, queue: Queue, items: Sequence[Item]) -> None:
    """End messages that stand nowhere in their queue, as it wishes."""
    count = sum(item.stop - item.first for item in items)
    if not count:
        return
    queue.group.counters["ttl_expired"] += count
    expired = store.sums.lifetimes.expired
    if not expired:
        store.set_timer(_tell_operator, None, store.now_ms + TELL_MS)
    expired[queue.name] = expired.get(queue.name, 0) + count
    if queue.settings["on_expired"] == "dead-letter":
        for item in items:
            for message in singles_of(item):
                _die(store, queue, message)
    else:
        _drop(store, queue, items)
    store.touch(queue.group)  # it may have nothing left


def _die(store: Store, queue: Queue, message: Message) -> None:
    text = f"its time to live of {message.block.terms.ttl_ms} ms was over"
    entry = AttemptMeta(0, 0, store.unix_ms, "", CAUSE, "", text)
    message.add_history(entry)
    dead_letter(store, queue, message, entry)


def _drop(store: Store, queue: Queue, items: Sequence[Item]) -> None:
    runs: list[Run] = []
    logged: list[Run] = []
    for item in items:
        run = (0, item.block.origin, item.first, item.stop - item.first)
        runs.append(run)
        if item.block.durability != MEMORY:
            logged.append(run)
        queue.count_out(item.block, item.first, item.stop)
    end_runs(store, queue, Outcome.EXPIRED, runs, logged)


def _tell_operator(store: Store, timer: Timer, argument: None) -> None:
    lifetimes = store.sums.lifetimes
    expired, lifetimes.expired = lifetimes.expired, {}
    for name, count in expired.items():
        store.effects.note("messages_expired", queue=name, messages=count)
