"""Requests: the commands that are answered by a reply, one handler for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import msgspec

from minibroker import limits
from minibroker.commands import COMMANDS
from minibroker.settings import check_settings
from minibroker.wire import RUN, pack_strings
from minibrokerd.core.deliveries import Consumer
from minibrokerd.core.dispatching import dispatch, line_up
from minibrokerd.core.inputs import Frame
from minibrokerd.core.logins import leave
from minibrokerd.core.messages import Block, Item, Message, State
from minibrokerd.core.moving import delete, purge, redrive
from minibrokerd.core.queues import DEFAULTS, Queue
from minibrokerd.core.settling import read_runs
from minibrokerd.core.state import Broken, Refused, Store, check_name
from minibrokerd.core.wheel import Timer
from minibrokerd.core.withdrawing import (
    end_consumer,
    end_receive,
    open_consumer,
    put_back_lost_answer,
    withdraw,
)

Handler = Callable[[Store, Frame, Any], None]
REQUESTS: Final[dict[str, Handler]] = {}
REFILL_MS: Final = 100
pack: Final = msgspec.msgpack.Encoder().encode


def handles(op: str) -> Callable[[Handler], Handler]:
    """Make the decorated function the handler of a row of the command table."""

    def enter(handler: Handler) -> Handler:
        assert op in COMMANDS, f"{op} needs a row in the command table"
        REQUESTS[op] = handler
        return handler

    return enter


@handles("consume")
def consume(store: Store, frame: Frame, part: Any) -> None:
    """Add a consumer, or change the prefetch of one that is there."""
    connection = store.connections[frame.connection]
    consumer = connection.consumers.get(part.consumer)
    if consumer is None:
        if len(connection.consumers) >= limits.MAX_CONSUMERS_PER_CONNECTION:
            raise Refused(
                "limit_reached",
                f"this connection has {len(connection.consumers)} consumers, as many as one may have; "
                "give fewer of them a larger prefetch, or open another connection",
            )
        queue = store.queue_or_new(part.queue)
        consumer = Consumer(
            connection.id,
            connection.session.id,
            part.consumer,
            queue.number,
            part.prefetch,
            part.lease_ms,
        )
        open_consumer(connection, consumer, frame.request)
        queue.consumer_count += 1
    else:
        queue = store.by_number[consumer.queue_number]
        if queue.name != part.queue:
            raise Refused(
                "bad_value",
                f"consumer {part.consumer} takes from {queue.name!r}; cancel it first, or use another number",
            )
        consumer.prefetch, consumer.lease_ms = part.prefetch, part.lease_ms
    line_up(store, queue, consumer)
    store.reply(frame.connection, frame.request, queue.last_batch, {})


@handles("cancel")
def cancel(store: Store, frame: Frame, part: Any) -> None:
    """End a consumer: what it has not begun goes back, unmarked, for it was given back on purpose."""
    connection = store.connections[frame.connection]
    consumer = connection.consumers.get(part.consumer)
    rests_on = end_consumer(store, connection, consumer) if consumer is not None else 0
    store.reply(frame.connection, frame.request, rests_on, {})


@handles("withdraw")
def withdraw_request(store: Store, frame: Frame, part: Any) -> None:
    """End what nobody waits for any more; after the reply no answer to it follows."""
    rests_on = withdraw(store, store.connections[frame.connection], part.withdrawn)
    store.reply(frame.connection, frame.request, rests_on, {})


@handles("receive")
def receive(store: Store, frame: Frame, part: Any) -> None:
    """Deliver once: now, or when something comes within wait_ms."""
    connection = store.connections[frame.connection]
    assert frame.request is not None, "it needs a request number"
    if frame.request in connection.receives:
        raise Broken(f"a receive needs a request number of its own; {frame.request} waits already")
    if len(connection.receives) >= limits.MAX_RECEIVES_PER_CONNECTION:
        raise Refused(
            "limit_reached",
            f"{len(connection.receives)} receives of this connection wait, as many as may; "
            "await some of them first, or consume",
        )
    put_back_lost_answer(store, connection, frame.request)
    queue = store.queue_or_new(part.queue)
    consumer = Consumer(
        connection.id,
        connection.session.id,
        0,
        queue.number,
        max(part.count, 1),
        part.lease_ms,
        request=frame.request,
    )
    connection.receives[frame.request] = consumer
    queue.consumer_count += 1
    line_up(store, queue, consumer)
    # A connection that just got its share of output is served in a moment; "none" would not be true.
    wait_ms = part.wait_ms or (0 if connection.room > 0 else REFILL_MS)
    if wait_ms:
        consumer.timer = store.set_timer(_wait_over, consumer, store.now_ms + wait_ms)
        return
    if store.hands_out():
        dispatch(store, queue)
    if consumer.active:
        _wait_over(store, None, consumer)


def _wait_over(store: Store, timer: Timer | None, consumer: Consumer) -> None:
    queue = store.by_number[consumer.queue_number]
    connection = store.connections[consumer.connection]
    end_receive(store, connection, consumer)
    empty = {"op": "deliver", "request": consumer.request, "queue": queue.name, "token": 0}
    store.send(connection.id, 0, empty | {"lease_ms": 0, "count": 0, "runs": 0, "begun": True})


@handles("peek")
def peek(store: Store, frame: Frame, part: Any) -> None:
    """Show messages of every state, with their histories."""
    queue = store.queue(part.queue)
    infos: list[bytes] = []
    bodies: list[tuple[Block, int, int]] = []
    room = limits.DELIVERY_BYTES
    for state, item, sequence in islice(_singles(queue, part.skip), part.count):
        info = pack(describe(state, item, sequence))
        room -= len(info) + item.block.bytes_of(sequence, sequence + 1)
        if room < 0 and infos:
            break
        infos.append(info)
        bodies.append((item.block, sequence, sequence + 1))
    header = {"op": "messages", "request": frame.request, "count": len(infos)}
    store.send(frame.connection, queue.last_batch, header, pack_strings(infos), bodies)


def _singles(queue: Queue, skip: int) -> Iterator[tuple[State, Item, int]]:
    """Yield the messages of a queue one by one, without the first `skip`."""
    for state, item in queue.items():
        passed = min(skip, item.stop - item.first)
        skip -= passed
        for sequence in range(item.first + passed, item.stop):
            yield state, item, sequence


def describe(state: State, item: Item, sequence: int) -> dict[str, Any]:
    """Return what peek says of one message; times are unix ms."""
    block = item.block
    info: dict[str, Any] = {
        "origin": block.origin,
        "sequence": sequence,
        "state": state.name,
        "encoding": block.encoding_of(sequence),
        "key": item.key,
        "published_unix_ms": block.unix_ms,
    }
    if isinstance(item, Message):
        failed, expired, worker_lost = item.attempts
        info |= {
            "attempts": {"failed": failed, "expired": expired, "worker_lost": worker_lost},
            "redriven": item.redriven,
            "history": [msgspec.structs.asdict(entry) for entry in item.history],
            "history_dropped": item.dropped,
        }
    return info


@handles("redrive")
def redrive_request(store: Store, frame: Frame, part: Any) -> None:
    """Start to send dead messages back; the reply follows the last step."""
    dlq = store.queue(part.queue)
    wanted = read_runs(frame.columns, part.runs)
    if len(frame.columns) != part.runs * RUN.size:
        raise Broken(f"{len(frame.columns)} bytes of columns came for {part.runs} runs")
    step = redrive(store, dlq, wanted, part.count)

    def job() -> bool:
        finished, value = step()
        if finished and frame.connection in store.connections:
            store.reply(frame.connection, frame.request, dlq.last_batch, value)
        return finished

    if not job():
        store.jobs.append(job)


@handles("purge")
def purge_request(store: Store, frame: Frame, part: Any) -> None:
    """End every message of a queue."""
    queue = store.queue(part.queue)
    count = purge(store, queue)
    for connection in store.connections.values():
        for consumer in [*connection.consumers.values(), *connection.receives.values()]:
            if consumer.queue_number == queue.number:
                line_up(store, queue, consumer)
    store.reply(frame.connection, frame.request, queue.last_batch, {"purged": count})


@handles("queue_set")
def queue_set(store: Store, frame: Frame, part: Any) -> None:
    """Create a queue, or change its settings."""
    try:
        changes = check_settings(part.settings)
    except ValueError as error:
        raise Refused("bad_value", str(error)) from error
    queue = store.queues.get(part.queue)
    if queue is None:
        check_name(part.queue)
        queue = store.create_queue(part.queue, DEFAULTS | changes)
    elif any(queue.settings[name] != value for name, value in changes.items()):
        _check_dlq_durability(store, queue, changes)
        _change(store, queue, changes)
        dlq = store.queues.get(queue.name + limits.DLQ_SUFFIX)
        if dlq is not None and "durability" in changes:
            _change(store, dlq, {"durability": changes["durability"]})
    store.reply(
        frame.connection, frame.request, queue.last_batch, {"settings": dict(queue.settings)}
    )


def _change(store: Store, queue: Queue, changes: dict[str, int | str]) -> None:
    queue.configure(queue.settings | changes)
    store.write_queue(queue)


def _check_dlq_durability(store: Store, queue: Queue, changes: dict[str, int | str]) -> None:
    if queue.is_dlq and "durability" in changes:
        raise Refused(
            "bad_value",
            "the messages of a DLQ keep the durability of their source; set it there instead",
        )


@handles("queue_show")
def queue_show(store: Store, frame: Frame, part: Any) -> None:
    """Answer with the settings of a queue."""
    queue = store.queue(part.queue)
    store.reply(
        frame.connection, frame.request, queue.last_batch, {"settings": dict(queue.settings)}
    )


@handles("queue_delete")
def queue_delete(store: Store, frame: Frame, part: Any) -> None:
    """End a queue and its DLQ."""
    count = delete(store, store.queue(part.queue), force=bool(part.force))
    store.reply(frame.connection, frame.request, store.nowhere.last_batch, {"purged": count})


@handles("stats")
def stats(store: Store, frame: Frame, part: Any) -> None:
    """Answer with counters: of one queue, or of all and of the server."""
    queues = [store.queue(part.queue)] if part.queue else list(store.queues.values())
    shown = (
        queues if part.queue else [*queues, store.nowhere]
    )  # those that are not there any more, too
    value: dict[str, Any] = {
        "queues": {queue.name: {"number": queue.number, **queue.statistics()} for queue in queues}
    }
    if not part.queue:
        value["server"] = {
            "epoch": store.epoch,
            "sessions": len(store.sessions),
            "connections": len(store.connections),
        }
    rests_on = max(queue.last_batch for queue in shown)
    store.reply(frame.connection, frame.request, rests_on, value)


@handles("ping")
def ping(store: Store, frame: Frame, part: Any) -> None:
    """Answer a sign of life."""
    header: dict[str, Any] = {"op": "pong"}
    if frame.request is not None:
        header["request"] = frame.request
    store.send(frame.connection, 0, header)


@handles("goodbye")
def goodbye(store: Store, frame: Frame, part: Any) -> None:
    """The client leaves on purpose: the session ends with its connections."""
    leave(store, store.connections[frame.connection])
