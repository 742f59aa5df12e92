"""Each change of state of a message: a table of what it counts, arms and gives back, and the function for a row.

A message is READY, DELAYED, HELD or BEGUN, or stands nowhere in its group: it has not come in yet, has ended, or
was just taken out to go elsewhere. What is READY is in a lane, which counts it. What is DELAYED is among the
delayed ones. What is HELD or BEGUN is in its delivery; its verb takes it out of that before the row.

What nearly all messages do goes a shorter way: `Group.enter`, and the functions at the end; by the table a receive
and its ack took 4 % more instructions. A test holds each to its row (tests/core/test_core_transitions.py).
A purge is no row: it ends the messages of a group all at once (`Group.empty`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from minibrokerd.core.model.deliveries import BegunSpan, Consumer, Delivery
from minibrokerd.core.model.group import Group
from minibrokerd.core.model.lifetimes import see_waiting
from minibrokerd.core.model.messages import (
    BEGUN,
    DELAYED,
    HELD,
    READY,
    Item,
    Message,
    Span,
    State,
    is_dead,
)
from minibrokerd.core.model.sheaf import Sheaf
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import TICK_MS, Timer

if TYPE_CHECKING:
    from minibrokerd.core.model.keys import Keys


class Row(NamedTuple):
    """What one change of state does, beside putting the message where it belongs."""

    leaves: str = ""  # the counter of the group that has it no more; "": its lane counts, or none
    enters: str = ""  # the one that has it now
    disarms: bool = False  # its timer ends: of a delay, or of a lease
    arms: bool = False  # one begins
    credit: int = 0  # 1: its consumer may take one more, -1: one less


STEP_MESSAGES: Final = 100  # of a sheaf that are ready in one apply, after the first
Rows = dict[tuple[State | None, State | None], Row]
# From and to; None: it stands nowhere in the group.
ROWS: Final[Rows] = {
    (None, READY): Row(),
    (None, DELAYED): Row(enters="delayed_count", arms=True),
    (None, HELD): Row(enters="held", credit=-1),
    (None, BEGUN): Row(enters="begun", arms=True),  # a start found its lease
    (DELAYED, READY): Row(leaves="delayed_count", disarms=True),
    (DELAYED, None): Row(leaves="delayed_count", disarms=True),
    (READY, HELD): Row(enters="held", credit=-1),
    (HELD, BEGUN): Row(leaves="held", enters="begun", arms=True),
    (HELD, READY): Row(leaves="held", credit=1),
    (HELD, DELAYED): Row(leaves="held", enters="delayed_count", arms=True, credit=1),
    (HELD, None): Row(leaves="held", credit=1),
    (BEGUN, READY): Row(leaves="begun", disarms=True, credit=1),
    (BEGUN, DELAYED): Row(
        leaves="begun", enters="delayed_count", disarms=True, arms=True, credit=1
    ),
    (BEGUN, None): Row(leaves="begun", disarms=True, credit=1),
}


def change(
    store: Store,
    group: Group,
    items: Sequence[Item],
    source: State | None,
    target: State | None,
    delivery: Delivery | None = None,
    *,
    until_ms: int = 0,
) -> None:
    """Do one row of the table with items that are alike.

    `delivery` is the one that has, had or gets them; its consumer has the credit. `until_ms` is when a lease ends
    (log time); a delay ends when its item is ready.
    """
    row = ROWS[source, target]
    count = sum([item.stop - item.first for item in items])
    if row.leaves:
        setattr(group, row.leaves, getattr(group, row.leaves) - count)
        if source is HELD:
            _stir(store, group)
    if row.enters:
        setattr(group, row.enters, getattr(group, row.enters) + count)
    if row.disarms:
        for item in items:
            _disarm(store, group, item, source)
    if row.credit and delivery is not None:
        give_credit(store, group, delivery, row.credit * count)
    if row.arms:
        for item in items:
            _arm(store, group, item, target, until_ms)
    if target is not None:
        _PUT[target](store, group, items, delivery)
    if group.keys is not None:
        _count_keys(group.keys, items, source, target)


def _count_keys(
    keys: Keys, items: Sequence[Item], source: State | None, target: State | None
) -> None:
    """Note what is in work now, or no more; a key is open or closed by it."""
    was_in_work = source in (HELD, BEGUN)
    if was_in_work == (target in (HELD, BEGUN)):
        return
    if not was_in_work:
        keys.works(items)
        return
    keys.ended_work(items)


def wait(store: Store, group: Group, item: Item, delivery: Delivery | None = None) -> None:
    """Let an item wait: ready, or DELAYED until its `ready_at_ms`; out of a delivery, or from nowhere."""
    target = DELAYED if item.ready_at_ms > store.now_ms else READY
    change(store, group, (item,), state_in(item, delivery), target, delivery)


def state_in(item: Item, delivery: Delivery | None) -> State | None:
    """Return the state of an item that was taken out of a delivery; None: out of none."""
    if delivery is None:
        return None
    return item.state if isinstance(item, Message) else HELD


def take_delayed(store: Store, group: Group, item: Item) -> None:
    """Take out what is DELAYED, so that it stands nowhere."""
    change(store, group, (item,), DELAYED, None)


def delay_over(store: Store, group: Group, timer: Timer, most: int) -> int:
    """The time of what is DELAYED under a timer has come; return how many messages of a sheaf that was.

    Those are `most` now, and the rest in steps.
    """
    item = group.delayed.get(timer)
    if isinstance(item, Sheaf):
        return give_due(store, group, item, most)
    if item is not None:
        change(store, group, (item,), DELAYED, READY)
    return 0


def give_credit(store: Store, group: Group, delivery: Delivery, count: int) -> None:
    """Let the consumer of a delivery take as many messages more; fewer, where that is below 0."""
    consumer = delivery.consumer
    if consumer is None:
        return
    consumer.outstanding -= count
    if not consumer.outstanding:
        consumer.idle_since_ms = store.now_ms
    if (
        consumer.active
        and not consumer.waiting
        and count > 0
        and not store.connections[consumer.connection].stopped
    ):
        group.stand_in_line(consumer)
        store.touch(group)
    elif consumer.at_work:
        _stir(store, group)


def _stir(store: Store, group: Group) -> None:
    """Look again whether somebody in line has nothing to do, while others hold something (verbs/recalling.py)."""
    if group.held and group.consumers and group.recall is None:
        store.touch(group)


def _disarm(store: Store, group: Group, item: Item, source: State | None) -> None:
    timer = item.timer
    assert timer is not None
    if source is not DELAYED or group.undelay(timer, item):
        store.wheel.cancel(timer)
    if isinstance(item, Message):
        item.timer = None
    else:
        del item.timer  # it may be that of a sheaf, which goes on


def _arm(store: Store, group: Group, item: Item, target: State | None, until_ms: int) -> None:
    item.timer = timer = Timer(item if target is BEGUN else group)
    if target is BEGUN:
        store.wheel.schedule(timer, until_ms)
    elif not is_dead(item):
        # What is dead waits for no time, but for room: its timer is only its name among the others.
        store.wheel.schedule(timer, item.ready_at_ms)


def _ready(store: Store, group: Group, items: Sequence[Item], delivery: Delivery | None) -> None:
    messages = [item for item in items if isinstance(item, Message)]
    for message in messages:
        message.state, message.delivery = READY, None
    if len(messages) > 1:
        group.put_all_back(messages)
    else:
        for item in items:
            group.put_back(item)
    if store.sums.lifetimes:
        see_waiting(store, group, items)
    store.touch(group)


def _delayed(store: Store, group: Group, items: Sequence[Item], delivery: Delivery | None) -> None:
    for item in items:
        if isinstance(item, Message):
            item.state, item.delivery = DELAYED, None
        assert item.timer is not None
        group.delay(item.timer, item)
    if store.sums.lifetimes:
        see_waiting(store, group, items)


def _held(store: Store, group: Group, items: Sequence[Item], delivery: Delivery | None) -> None:
    assert delivery is not None
    for item in items:
        delivery.add(item)


def _begun(store: Store, group: Group, items: Sequence[Item], delivery: Delivery | None) -> None:
    for item in items:
        assert isinstance(item, Message)
        item.state = BEGUN


# -- sheaves: (None, DELAYED) and (DELAYED, READY) of many messages together; all else goes by the table -----


def wait_together(store: Store, group: Group, sheaf: Sheaf) -> None:
    """None to DELAYED: fresh messages of one publish, none of them ready yet."""
    group.delayed_count += sheaf.left
    sheaf.timer.item = group
    store.wheel.schedule(sheaf.timer, sheaf.next_ms)
    group.delay_sheaf(sheaf)


def give_due(store: Store, group: Group, sheaf: Sheaf, most: int) -> int:
    """DELAYED to READY: up to `most` messages of a sheaf whose time has come; return how many. More follow."""
    upto_ms = store.now_ms // TICK_MS * TICK_MS  # as each would by a timer of its own
    spans = sheaf.due(upto_ms, most) if most > 0 else []
    count = sum([span.stop - span.first for span in spans])
    group.delayed_count -= count
    if not sheaf.left:
        group.undelay_sheaf(sheaf)
    elif sheaf.next_ms > upto_ms:
        store.wheel.schedule(sheaf.timer, sheaf.next_ms)
    else:
        store.jobs.append(lambda: _give_more(store, group, sheaf))
    if spans:
        _ready(store, group, spans, None)
    return count


def _give_more(store: Store, group: Group, sheaf: Sheaf) -> bool:
    if group.delayed.get(sheaf.timer) is sheaf:
        give_due(store, group, sheaf, STEP_MESSAGES)
    return True


_PUT: Final = {READY: _ready, DELAYED: _delayed, HELD: _held, BEGUN: _begun}


# -- the fast path: what nearly all messages do, as whole spans ---------------------------------------


def deliver(group: Group, consumer: Consumer, count: int) -> None:
    """READY to HELD: messages that were put into a delivery of this consumer."""
    group.held += count
    consumer.outstanding += count


def begin(store: Store, group: Group, delivery: Delivery, messages: Sequence[Message]) -> None:
    """HELD to BEGUN: messages of this delivery, whose leases begin now and end together."""
    schedule, lease_ms = store.wheel.schedule, delivery.lease_ms
    unix_ms, until_ms = store.unix_ms, store.now_ms + lease_ms
    for message in messages:
        message.state = BEGUN
        message.started_unix_ms = unix_ms
        message.lease_ms = lease_ms
        message.timer = timer = Timer(message)
        schedule(timer, until_ms)
    count = len(messages)
    group.held -= count
    group.begun += count
    if group.held:
        _stir(store, group)


def begin_together(
    store: Store, group: Group, delivery: Delivery, spans: Sequence[Span], count: int
) -> None:
    """HELD to BEGUN: so many messages in spans that were taken out of this delivery; one lease for each span."""
    unix_ms, lease_ms = store.unix_ms, delivery.lease_ms
    for span in spans:
        timer = Timer(None)
        delivery.begin(BegunSpan(delivery, span, unix_ms, lease_ms, timer))
        store.wheel.schedule(timer, store.now_ms + lease_ms)
    group.held -= count
    group.begun += count
    if group.held:
        _stir(store, group)


def end_together(
    store: Store, group: Group, delivery: Delivery, items: Sequence[BegunSpan]
) -> None:
    """BEGUN to None: messages that were begun together, and taken out of their delivery."""
    count = 0
    for item in items:
        store.wheel.cancel(item.timer)
        count += item.span.stop - item.span.first
    group.begun -= count
    give_credit(store, group, delivery, count)
    if group.keys is not None:
        _count_keys(group.keys, [item.span for item in items], BEGUN, None)


def end_begun(store: Store, group: Group, delivery: Delivery, messages: Sequence[Message]) -> None:
    """BEGUN to None: messages that were taken out of their delivery."""
    cancel = store.wheel.cancel
    for message in messages:
        assert message.timer is not None
        cancel(message.timer)
        message.timer = None
    group.begun -= len(messages)
    give_credit(store, group, delivery, len(messages))
    if group.keys is not None:
        _count_keys(group.keys, messages, BEGUN, None)


def end_held(
    store: Store, group: Group, delivery: Delivery, spans: Sequence[Span], count: int
) -> None:
    """HELD to None: messages without a history, so many in these spans, that were taken out of their delivery."""
    group.held -= count
    if group.held:
        _stir(store, group)
    give_credit(store, group, delivery, count)
    if group.keys is not None:
        _count_keys(group.keys, spans, HELD, None)
