"""What a client may look at: counters of queues, and messages as they lie there. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import msgspec

from minibroker import limits
from minibroker.wire import pack_strings
from minibrokerd.core.handlers import handles, read_ids
from minibrokerd.core.inputs import Frame
from minibrokerd.core.messages import Block, Item, Message, State
from minibrokerd.core.queues import Queue
from minibrokerd.core.state import Broken, Refused, Store

pack: Final = msgspec.msgpack.Encoder().encode


@handles("stats")
def stats(store: Store, frame: Frame, part: Any) -> None:
    """Answer with counters: of one queue, or of the server and a page of the queues in the order of their numbers.

    A counter is a view of this moment, and may show what a crash takes back; but that a queue is gone is said only
    when its end is safe (docs/decisions/0012).
    """
    value: dict[str, Any] = {}
    if part.queue:
        queues = [store.queue(part.queue)]
    else:
        most = part.count or limits.MAX_STATS_QUEUES
        numbers = store.numbers_after(part.after, most + 1)
        if len(numbers) > most:
            del numbers[most:]
            value["next"] = numbers[-1]
        queues = [store.by_number[number] for number in numbers]
        value["server"] = {
            "epoch": store.epoch,
            "sessions": len(store.sessions),
            "connections": len(store.connections),
        }
    value["queues"] = {
        queue.name: {"number": queue.number, **queue.statistics()} for queue in queues
    }
    store.reply(frame.connection, frame.request, store.nowhere.last_batch, value)


@handles("peek")
def peek(store: Store, frame: Frame, part: Any) -> None:
    """Show messages of every state, with their histories."""
    queue = store.queue(part.queue)
    wanted = {(run[1], run[2] + i) for run in read_ids(frame, part) for i in range(run[3])}
    if part.state and part.state not in State.__members__:
        raise Refused("bad_value", f"there is no state {part.state!r}")
    if len(part.after) not in (0, 8):
        raise Broken("`after` is not from an answer of this server")
    start = int.from_bytes(part.after) + part.skip
    infos: list[bytes] = []
    bodies: list[tuple[Block, int, int]] = []
    room = limits.DELIVERY_BYTES
    header: dict[str, Any] = {"op": "messages", "request": frame.request}
    found = (
        (state, item, sequence)
        for state, item, sequence in _singles(queue)
        if not (part.state and state.name != part.state)
        and not (wanted and (item.block.origin, sequence) not in wanted)
    )
    for state, item, sequence in islice(found, start, None):
        info = pack(describe(state, item, sequence))
        room -= len(info) + item.block.bytes_of(sequence, sequence + 1)
        if len(infos) == part.count or (room < 0 and infos):
            header["next"] = (start + len(infos)).to_bytes(8)
            break
        infos.append(info)
        bodies.append((item.block, sequence, sequence + 1))
    header["count"] = len(infos)
    store.send(frame.connection, queue.last_batch, header, pack_strings(infos), bodies)


def _singles(queue: Queue) -> Iterator[tuple[State, Item, int]]:
    for state, item in queue.items():
        for sequence in range(item.first, item.stop):
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
        if item.dead:
            info["dead"] = True
    return info
