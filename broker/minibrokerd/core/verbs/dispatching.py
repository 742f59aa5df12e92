"""Who gets what: ready messages meet waiting consumers, at the end of every apply.

Consumers take turns, and with W of them waiting none gets more than its share of what is ready. A delivery
is one token and one frame: runs of messages that share everything the header would say of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minibroker.contract import limits
from minibroker.contract.wire import DELIVERY_RUN, MARKED, pack_strings
from minibrokerd.core.durable.paging import read_ahead
from minibrokerd.core.model.circuits import hands_out, is_open
from minibrokerd.core.model.deliveries import Consumer, Delivery
from minibrokerd.core.model.group import Group
from minibrokerd.core.model.messages import Block, Item, Span, alike
from minibrokerd.core.model.no_lanes import NO_LANES
from minibrokerd.core.model.noting import ids_of
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.sessions import Connection
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import deliver
from minibrokerd.core.verbs.attempts import begin_handed, begin_messages
from minibrokerd.core.verbs.expiring import alive
from minibrokerd.core.verbs.recalling import watch
from minibrokerd.core.verbs.retaining import look
from minibrokerd.core.verbs.takers import note_taking
from minibrokerd.core.verbs.turns import has_turn


def dispatch(store: Store, group: Group) -> None:
    """Deliver until nothing is ready or nobody can take more."""
    if group.retained is not None and look(store, group.retained):
        return
    if group.paused:
        return
    if store.sums.singles and not has_turn(store, group):
        return
    line = group.consumers
    share = turns = 0
    is_held_up = False  # what comes next is not in memory, be it that all of it has ended
    tried = group.circuit is not None and is_open(group)
    if tried and not hands_out(group):
        return
    keys, connections = group.keys, store.connections
    while line and group.lanes.ready:
        if not turns:  # a share is fixed for a round: what later ones got must not make it smaller
            turns = len(line)
            most = group.lanes.ready if keys is None else keys.most_now()
            share = -(-most // turns) or 1
        turns -= 1
        consumer, _ = line.popitem(last=False)
        credit = consumer.credit()
        if credit <= 0 or connections[consumer.connection].stopped:
            consumer.waiting = False
            continue
        most = credit if credit < share else share
        if most > limits.MAX_MESSAGES_PER_FRAME:
            most = limits.MAX_MESSAGES_PER_FRAME
        if keys is not None:
            most = keys.queue_room(most)
        if tried:
            most = min(most, hands_out(group))
        if not most or not _deliver(store, group, consumer, most):
            line[consumer] = None
            line.move_to_end(consumer, last=False)
            is_held_up = True
            break
        if consumer.active and consumer.prefetch > consumer.outstanding:
            line[consumer] = None
        else:
            consumer.waiting = False
    if line and group.held and group.recall is None and not group.lanes.turns:
        watch(store, group)  # somebody has nothing to do, and somebody else more than he has begun
    lanes = group.lanes
    if group.max_wait_ms and (is_held_up or group.queue.cold_bytes):
        lanes = lanes.first_by_age(store.now_ms - group.max_wait_ms)
    if lanes.default.cold:
        read_ahead(store, group.queue, lanes.foremost)
    elif not (group.lanes.ready or group.idle or group.lanes is NO_LANES):
        store.rest_later(group)


def line_up(store: Store, queue: Queue, consumer: Consumer) -> None:
    """Let a consumer that can take something stand in the queue's line."""
    if (
        not consumer.waiting
        and consumer.credit() > 0
        and not store.connections[consumer.connection].stopped
    ):
        queue.group.stand_in_line(consumer)
        store.touch(queue.group)


def line_up_all(store: Store, connection: Connection) -> None:
    """Let every consumer of a connection that can take something stand in its line, or have a free turn."""
    for consumer in [*connection.consumers.values(), *connection.receives.values()]:
        queue = store.by_number[consumer.queue_number]
        line_up(store, queue, consumer)
        if consumer.waiting and queue.group in store.sums.singles:
            store.touch(queue.group)  # it may wait on the bench, and have been passed over


def _deliver(store: Store, group: Group, consumer: Consumer, most: int) -> bool:
    """Deliver something; False: what comes next has to be read back first, or all is of closed keys."""
    if group.max_wait_ms:
        items = _take_by_age(store, group, most)
    else:
        items = group.lanes.take(most, limits.DELIVERY_BYTES)
    if not items:
        return False
    token = store.next_token()
    if store.sums.lifetimes:
        items = alive(store, group, items, token)
        if not items:
            return True
    if group.keys is not None:
        group.keys.delivered(items)
    queue, connection = group.queue, store.connections[consumer.connection]
    terms = items[0].block.terms  # the same of all: `Lanes.take` ends before what has others
    # Any: the value of this setting is an int.
    lease_ms: Any = terms.lease_ms or consumer.lease_ms or queue.settings["lease_ms"]
    delivery = Delivery(
        token, queue.number, queue.home, consumer.session, connection.id, consumer, lease_ms
    )
    bodies, count, size, rests_on, runs, is_keyed = _fill(delivery, items)
    if store.standing.took_old:
        store.standing.add_delivery(delivery)
    group.counters["delivered"] += count
    if not consumer.outstanding:
        consumer.idle_ms += store.now_ms - consumer.idle_since_ms
    deliver(group, consumer, count)
    consumer.delivered += count
    store.deliveries[token] = group.deliveries[token] = delivery
    session = connection.session
    session.delivered += count
    session.deliveries.add(token)
    column = b"".join(runs)
    header = {"op": "deliver", "queue": queue.name, "token": token, "lease_ms": lease_ms}
    header["count"], header["runs"] = count, len(runs)
    if terms.max_attempts:
        header["max_attempts"] = terms.max_attempts
    if queue.settings["result_ms"]:
        header["results"] = True
    if store.chains.went:
        tell_counts(store, items, header)
    if is_keyed:
        header["keyed"] = True
        column += _keys(items, len(runs))
    waits, connection.waits = connection.waits, None  # whatever comes uses the word up
    if consumer.request is None:
        header["consumer"] = consumer.number
        if waits is consumer and begin_handed(store, queue, delivery, count):
            header["begun"] = True
        else:
            connection.tokens.add(token)
    else:
        header["request"] = consumer.request
        header["begun"] = True
        taking = note_taking(store, session, queue)
        if taking > consumer.batch:
            consumer.batch = taking
    # Not before the one in front of it, which may rest on a record that is not safe yet: what comes back
    # in it must not make the fresh messages beside it late.
    if rests_on > consumer.batch:
        consumer.batch = rests_on
    store.send(connection.id, consumer.batch, header, column, bodies)
    connection.room -= size + len(column)
    if connection.room <= 0:
        refill_later(store, connection, consumer.batch)
    if consumer.request is not None:
        _end_receive(store, group, consumer, delivery)
    return True


def _take_by_age(store: Store, group: Group, most: int) -> list[Item]:
    upto_ms = store.now_ms - group.max_wait_ms
    return group.lanes.take_by_age(upto_ms, most, limits.DELIVERY_BYTES)


def _fill(
    delivery: Delivery, items: Sequence[Item]
) -> tuple[list[tuple[Block, int, int]], int, int, int, list[bytes], bool]:
    """Put items into a delivery; return whose bytes go, how many messages and bytes, what they rest on, and runs.

    And whether any has a key. Keys that take turns mostly give neighbours of one publish: their bytes are cut as
    one piece, and counted once. All else is done in one loop, for such items have a message each.
    """
    bodies, spans, token = [], delivery.spans, delivery.token
    runs, pack = [], DELIVERY_RUN.pack
    count = size_bytes = rests_on = 0
    is_keyed = False
    at_block, at_first = items[0].block, items[0].first
    at_stop = at_first
    origin, encoding, unix_ms = at_block.origin, at_block.encoding, at_block.unix_ms
    for item in items:
        block, first, stop = item.block, item.first, item.stop
        if type(item) is Span:
            attempt = 1
            item.token = token
            spans[first] = item
        else:
            attempt = item.charged + 1
            delivery.add(item)
        if first != at_stop or block is not at_block:
            bodies.append((at_block, at_first, at_stop))
            size = at_stop - at_first
            count += size
            if at_block.starts is None:  # all of one size, as of most publishes
                size_bytes += at_block.size * size
            else:
                size_bytes += at_block.bytes_of(at_first, at_stop)
            at_block, at_first = block, first
            origin, encoding, unix_ms = block.origin, block.encoding, block.unix_ms
        at_stop = stop
        if item.key:
            is_keyed = True
        if item.batch > rests_on:
            rests_on = item.batch
        flags = MARKED if item.marked else 0
        if block.encodings is None:  # all alike, as nearly always
            runs.append(pack(origin, first, stop - first, attempt, flags, encoding, unix_ms))
            continue
        for one, next_one, own in alike(block, item):
            runs.append(pack(origin, one, next_one - one, attempt, flags, own, unix_ms))
    bodies.append((at_block, at_first, at_stop))
    size = at_stop - at_first
    is_even = at_block.starts is None
    size_bytes += at_block.size * size if is_even else at_block.bytes_of(at_first, at_stop)
    return bodies, count + size, size_bytes, rests_on, runs, is_keyed


def refill_later(store: Store, connection: Connection, rests_on: int = 0) -> None:
    """A large credit must not become one burst: after 1 MiB the shell has a turn to write, and to say stop.

    It can write nothing that rests on a batch before that is synced.
    """
    if rests_on > store.synced:
        store.brimful.append((rests_on, connection))
        return

    def refill() -> bool:
        connection.room = limits.OUTPUT_SOFT_BYTES
        if connection.id in store.connections:
            line_up_all(store, connection)
        return True

    store.jobs.append(refill)


def _end_receive(store: Store, group: Group, consumer: Consumer, delivery: Delivery) -> None:
    """A receive takes one delivery, which it begins, and is done."""
    assert consumer.request is not None
    connection = store.connections[consumer.connection]
    del connection.receives[consumer.request]
    connection.session.note_answer(consumer.request, delivery)
    if consumer.timer is not None:
        store.wheel.cancel(consumer.timer)
    consumer.active = False
    group.consumer_count -= 1
    begin_messages(store, group.queue, delivery.all_singles())


def _keys(items: list[Item], runs: int) -> bytes:
    """Return the column with the key of each run."""
    if runs == len(items):
        return pack_strings([item.key.encode() for item in items])
    keys = []
    for item in items:
        pieces = 1 if item.block.encodings is None else len(alike(item.block, item))
        keys += [item.key.encode()] * pieces
    return pack_strings(keys)


def tell_counts(store: Store, items: list[Item], header: dict[str, Any]) -> None:
    """Say of those messages that waited for others how these ended."""
    went = store.chains.went
    found = [(*id, *went[id]) for item in items for id in ids_of(item) if id in went]
    if found:
        header["after"] = found
