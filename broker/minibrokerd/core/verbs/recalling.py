"""Take-back: what a busy consumer holds, and has not begun, goes to one that has nothing to do.

A begin is not answered, so only the client knows what it has begun: it is asked (`recall`), and gives back what it
has not (`release`, `recalled`). Until then the message is its own; so nothing ever runs twice for this. A client
is asked only if it said that it knows the frame (`accept`).

While somebody idle waits in the line of a group that has nothing ready, and something of it is held, the group is
looked at ten times a second. Else the looks end; what can make somebody idle (transitions.py) begins them anew.
Idle is who could take more, holds nothing itself, and works on less than when it last gave something back: so what
moved does not come back to one that is as busy as before. Asked back is the newer half of what a busy one has held
for that long, never more than the idle ones could take; what moved must be held that long again before it can move
again.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from minibroker.contract.wire import pack_runs
from minibrokerd.core.model.deliveries import Consumer, Delivery, Run
from minibrokerd.core.model.group import Group
from minibrokerd.core.model.messages import Item, State
from minibrokerd.core.model.recalls import Recall
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import Timer

LOOK_MS: Final = 100  # from one look to the next: so long a message was held at the least
ASK_AGAIN_MS: Final = 1_000  # a client that has not answered
MOST_MESSAGES: Final = 100  # of one client, at a time
MOST_DELIVERIES: Final = 1_000  # of a group that are looked at, the oldest
MOST_ITEMS: Final = 5_000  # of these


def watch(store: Store, group: Group) -> None:
    """Look at a group from now on, as long as somebody in it is idle while others hold something."""
    group.recall = Recall(store.next_token())
    store.set_timer(_look, group, store.now_ms + LOOK_MS)


def given_back(group: Group, consumer: Consumer | None) -> None:
    """Note that a consumer gave back what it was asked for: the others have their turn first."""
    if consumer is None or not consumer.active:
        return
    consumer.at_work = consumer.outstanding
    recall = group.recall
    if recall is not None:
        recall.asked.pop(consumer, None)
        recall.apart.append(consumer)
        group.leave_line(consumer)


def _look(store: Store, timer: Timer, group: Group) -> None:
    recall = group.recall
    if recall is None or store.by_number.get(group.queue.number) is not group.queue:
        return
    for consumer in recall.apart:
        connection = store.connections.get(consumer.connection)
        if consumer.credit() > 0 and not consumer.waiting and connection is not None:
            group.stand_in_line(consumer)
    if recall.apart:
        recall.apart = []
        store.touch(group)
    if group.paused or not group.consumers or group.lanes.turns or not group.held:
        group.recall = None
        return
    if store.hands_out(group) and not _ask_back(store, group, recall):
        group.recall = None
        return
    recall.below = store.next_token()
    store.set_timer(_look, group, store.now_ms + LOOK_MS)


def _ask_back(store: Store, group: Group, recall: Recall) -> bool:
    """Ask for what the idle could take; False: nobody is idle, and time alone does not change that."""
    held, aged = _holders(group, recall.below)
    assert group.consumers is not None
    wanted, may_be = 0, len(group.consumers) > MOST_DELIVERIES
    for consumer in islice(group.consumers, MOST_DELIVERIES):
        connection = store.connections.get(consumer.connection)
        if consumer in held:
            continue
        if connection is None or connection.stopped:
            may_be = True
            continue
        if not consumer.at_work or consumer.outstanding < consumer.at_work:
            wanted += max(consumer.credit(), 0)
    if not wanted:
        return may_be
    for consumer in sorted(aged, key=held.__getitem__, reverse=True):
        connection = store.connections.get(consumer.connection)
        if wanted <= 0:
            break
        if connection is None or not connection.recalls or connection.stopped:
            continue
        if recall.asked.get(consumer, 0) > store.now_ms:
            continue
        runs = newest_held(aged[consumer], min(-(-held[consumer] // 2), wanted, MOST_MESSAGES))
        recall.asked[consumer] = store.now_ms + ASK_AGAIN_MS
        wanted -= sum(run[3] for run in runs)
        header = {"op": "recall", "queue": group.queue.name, "runs": len(runs)}
        store.send(connection.id, consumer.batch, header, pack_runs(runs))
    return True


def _holders(
    group: Group, below: int
) -> tuple[dict[Consumer, int], dict[Consumer, list[Delivery]]]:
    """Return how many messages consumers hold, and the deliveries in which they have held some for a while."""
    held: dict[Consumer, int] = {}
    aged: dict[Consumer, list[Delivery]] = {}
    looks = 0
    for delivery in islice(group.deliveries.values(), MOST_DELIVERIES):
        consumer = delivery.consumer
        looks += 1 + len(delivery.spans) + len(delivery.alone)
        if looks > MOST_ITEMS:
            break
        count = sum(item.stop - item.first for item in _held(delivery))
        if consumer is None or not count:
            continue
        held[consumer] = held.get(consumer, 0) + count
        if delivery.token < below and consumer.active:
            aged.setdefault(consumer, []).append(delivery)
    return held, aged


def _held(delivery: Delivery) -> list[Item]:
    singles = [each for each in delivery.alone.values() if each.state is State.HELD]
    return [*delivery.spans.values(), *singles]


def newest_held(deliveries: list[Delivery], most: int) -> list[Run]:
    """Return runs of the held messages that would be begun last, up to `most` of them."""
    runs: list[Run] = []
    for delivery in reversed(deliveries):
        items = sorted(_held(delivery), key=lambda item: item.ready_at_ms)
        for item in reversed(items):
            count = min(item.stop - item.first, most)
            if count <= 0:
                return runs
            runs.append((delivery.token, item.block.origin, item.stop - count, count))
            most -= count
    return runs
