"""Who has the turn in a queue with one active consumer, and when it passes to the next one.

It passes when who has it is gone, or stands still while somebody else is there, and not before all that it had
begun has ended: so no two consumers ever have messages of the queue, and what follows comes behind what was.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from minibroker.contract.wire import pack_runs
from minibrokerd.core.model.deliveries import Consumer
from minibrokerd.core.model.group import Group
from minibrokerd.core.model.sessions import Session
from minibrokerd.core.model.single import Single
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.recalling import newest_held

# Messages that are asked back; what a client has beyond that it works off.
MOST_ASKED: Final = 1_000


def has_turn(store: Store, group: Group) -> bool:
    """Let the next one have the turn, if it is time; return whether somebody has it, or all may take."""
    single = group.single
    if single is None:
        return True
    holder = single.holder
    if holder is not None and holder.active:
        if not single.bench or not _stands_still(store, holder):
            return True
        _take_turn_from(store, group, single, holder)
    if group.deliveries:
        return False
    for consumer in single.bench:
        if consumer.active and not _stands_still(store, consumer):
            _give_turn_to(store, group, single, consumer)
            return True
    return False


def goes_on(group: Group, session: Session) -> bool:
    """Whether one that comes back may go on with what waits; then nobody has the turn before that has ended.

    Not while somebody has it, or another session has not ended what it began. One of the deliveries says whose all
    are; it may not where several had some as the setting came.
    """
    single = group.single
    if single is None:
        return True
    if single.holder is not None and single.holder.active:
        return False
    if any(each.session != session.id for each in islice(group.deliveries.values(), 1)):
        return False
    single.holder, single.client = None, session.client
    return True


def _stands_still(store: Store, consumer: Consumer) -> bool:
    """Whether a consumer takes nothing: it let a lease end and was not heard of since, or it is paused."""
    connection = store.connections[consumer.connection]
    return connection.silent or connection.resting or not consumer.prefetch


def _take_turn_from(store: Store, group: Group, single: Single, holder: Consumer) -> None:
    """Let one that is there have the turn no more, and ask for what it has not begun: only its client knows."""
    group.leave_line(holder)
    single.holder = None
    connection = store.connections[holder.connection]
    deliveries = [each for each in group.deliveries.values() if each.consumer is holder]
    runs = newest_held(deliveries, MOST_ASKED)
    if runs and connection.recalls:
        header = {"op": "recall", "queue": group.queue.name, "runs": len(runs)}
        store.send(connection.id, holder.batch, header, pack_runs(runs))


def _give_turn_to(store: Store, group: Group, single: Single, consumer: Consumer) -> None:
    after, single.client = single.client, store.connections[consumer.connection].session.client
    if single.holder is None or single.holder.session != consumer.session:
        # A crash must not undo the end of what another one had, while this one works on what follows.
        consumer.batch = max(consumer.batch, group.queue.last_batch)
    single.leave(consumer)
    single.holder, single.since_unix_ms = consumer, store.unix_ms
    group.stand_in_line(consumer)
    if consumer.request is None:  # a receive has it for one answer
        store.effects.note(
            "consumer_active",
            client=single.client,
            connection=consumer.connection,
            queue=group.queue.name,
            after=after,
        )
