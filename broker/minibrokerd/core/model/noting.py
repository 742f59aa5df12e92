"""Messages that leave for good: noted for `explain`, kept where somebody asked for it, told to those who wait.

Every way out of a queue comes by `note_ended` (or `note_done`, `note_dead`, which know more of it), with the row
of the table of ends that says which one it is. What is kept stands in the log before the record of the end, in the
same batch, and is told when that is safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from minibroker.contract.ends import ENDS, Outcome
from minibroker.contract.wire import RUN, pack_runs
from minibrokerd.core.model import chains
from minibrokerd.core.model.deliveries import Run
from minibrokerd.core.model.kept import RESULT
from minibrokerd.core.model.messages import MEMORY, Item, Message
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import AckMeta, AttemptMeta
from minibrokerd.core.model.results import Asked, Id
from minibrokerd.core.model.state import Store

RESULT_BYTES: Final = 256  # of the record of an end without a result, at the most
NOTE_BYTES: Final = 128  # of the record of an end for one that waits for it, at the most
_pack = msgspec.msgpack.Encoder().encode
_unpack_texts = msgspec.msgpack.Decoder(tuple[str, str]).decode


def end_runs(
    store: Store,
    queue: Queue,
    outcome: Outcome,
    runs: Sequence[Run],
    logged: Sequence[Run],
    by: str = "",
) -> None:
    """Note the end of messages of `queue` that were taken out of it, and record it of those that the log has."""
    note_ended(store, queue, outcome, runs, logged, by)
    write_ended(store, queue, logged)


def note_ended(
    store: Store,
    queue: Queue,
    outcome: Outcome,
    runs: Sequence[Run],
    logged: Sequence[Run],
    by: str = "",
) -> None:
    """Note that messages of `queue` ended without a result; their record comes next.

    `runs` are all of them, `logged` those that are in the log, `by` who or what it was.
    """
    if not runs:
        return
    packed = pack_runs(runs)
    store.endings.remember(queue.name, ENDS[outcome.name].reason, by, store.unix_ms, packed)
    kept_ms = queue.setting("result_ms")
    if not (kept_ms or store.results.waiting or store.chains.ids):
        return
    value = by.encode()
    ids = list(_ids(runs))
    in_log = frozenset(_ids(logged))
    if kept_ms or store.chains.ids:
        store.keep_together(bytes_of_ends(store, runs) + (len(value) + RUN.size) * len(ids))
    for id in ids:
        note_one(store, queue, id, outcome, value, kept_ms, logged=id in in_log)
    chains.write(store)


def bytes_of_ends(store: Store, runs: Iterable[Run]) -> int:
    """Return how many bytes the notes of ends take at the most: of each, and of each message that waits for it."""
    size, told, ids = 0, 0, store.chains.ids
    for run in runs:
        size += RESULT_BYTES * run[3]
        if ids:
            told += sum(len(ids.get(id, ())) for id in _ids((run,)))
    return size + NOTE_BYTES * min(told, chains.MOST_TOLD)


def _ids(runs: Iterable[Run]) -> Iterable[Id]:
    return ((origin, first + at) for _, origin, first, count in runs for at in range(count))


def note_one(
    store: Store,
    queue: Queue,
    id: Id,
    outcome: Outcome,
    value: bytes,
    kept_ms: int,
    *,
    logged: bool,
) -> None:
    """Keep what a message of `queue` came to for `kept_ms` (0: not at all), and tell those who wait.

    After some of these, `chains.write`.
    """
    if kept_ms:
        entry_value = (int(outcome), value, store.unix_ms, queue.number)
        expires_unix_ms = store.unix_ms + kept_ms
        in_log = logged and queue.settings["results_in"] == "log"
        store.kept.put(store, RESULT, id, entry_value, expires_unix_ms, logged=in_log)
    tell_one(store, queue, id, outcome, value, store.open_batch if logged else 0)


def note_dead(store: Store, queue: Queue, message: Message, entry: AttemptMeta | None) -> None:
    """Note that a message of `queue` is dead, and of which error; its record comes next."""
    kept_ms = queue.setting("result_ms")
    if not (kept_ms or store.results.waiting or store.chains.ids):
        return
    texts = ("", "") if entry is None else (entry.error_class or entry.cause, entry.error_text)
    id, is_logged = (message.block.origin, message.sequence), message.block.durability != MEMORY
    note_one(store, queue, id, Outcome.DEAD, _pack(texts), kept_ms, logged=is_logged)
    chains.write(store)


def write_ended(store: Store, queue: Queue, runs: Sequence[Run]) -> None:
    """Record that messages ended, in as many records as it takes."""
    tail, most = pack_runs(runs), store.sizes.runs_bytes
    while tail:
        store.emit(AckMeta(queue.number, 0, 0, 0, 0, 0, 0), tail[:most])
        tail = tail[most:]
        queue.last_batch = store.open_batch


def ids_in(store: Store, queue: Queue, ids: Iterable[Id]) -> set[Id]:
    """Return which of these messages are in a queue now, whatever their state."""
    group, missing = queue.group, set(ids)
    if not queue.count():
        return set()
    found = {id for id in missing if group.lanes.find(*id) or group.later.find(*id)}
    missing -= found
    if missing and (group.held or group.begun):
        found |= _delivered(queue, missing)
    if missing and group.entering:
        spans = (span for _, each, _, spans, _ in store.entering if each is queue for span in spans)
        found |= {id for span in spans for id in ids_of(span) if id in missing}
    return found


def _delivered(queue: Queue, ids: set[Id]) -> set[Id]:
    """Return which of these are held or begun; of one delivery as much is looked at as there are ids, or less."""
    keys = {queue.key_of(*id): id for id in ids}
    found: list[Id] = []
    for delivery in queue.group.deliveries.values():
        singles, spans = delivery.singles, delivery.spans
        if len(singles) < len(keys):
            found += [keys[key] for key in singles if key in keys]
        else:
            found += [id for key, id in keys.items() if key in singles]
        for span in spans.values() if spans else ():
            if span.stop - span.first < len(keys):
                found += [id for id in ids_of(span) if id in ids]
            else:
                sequences = range(span.first, span.stop)
                found += [id for id in ids if id[1] in sequences and id[0] == queue.home]
    return set(found)


def foreign_origins(queue: Queue) -> set[int]:
    """Return where messages of a queue were published that were moved there; 0 may be among these."""
    group, home = queue.group, queue.home
    origins = group.later.origins()
    for lanes in group.lanes.levels:
        origins |= lanes.index.origins()
    for delivery in group.deliveries.values() if group.held or group.begun else ():
        # A span was never moved.
        origins |= {each.block.origin for each in delivery.singles.values()}
    return origins - {home}


def ids_of(item: Item) -> Iterable[Id]:
    """Return the id of each message of an item."""
    return ((item.block.origin, sequence) for sequence in range(item.first, item.stop))


def tell_one(
    store: Store, queue: Queue, id: Id, outcome: Outcome, value: bytes, rests_on: int
) -> None:
    """Tell those who wait for a message of `queue` that it ended; that rests on a batch, and nothing is kept.

    After some of these, `chains.write`.
    """
    if id in store.chains.ids:
        chains.ended(store, id, outcome)
    store.results.progress.pop(id, None)
    for asked in list(store.results.waiting.get(id, ())):
        if may_know(store, asked, queue.number):
            answer(store, asked, rests_on, value_of((outcome, value, store.unix_ms, 0)))


def value_of(kept: Any) -> dict[str, Any]:
    """Return what an answer says of an entry that is kept."""
    outcome, value, unix_ms, _ = kept
    said: dict[str, Any] = {"state": Outcome(outcome).name, "ended_unix_ms": unix_ms}
    if outcome == Outcome.DEAD:
        said["error_class"], said["error_text"] = _unpack_texts(value)
    elif value:
        said["result" if outcome == Outcome.DONE else "by"] = (
            value if outcome == Outcome.DONE else value.decode()
        )
    return said


# ---- those who wait ----


def may_know(store: Store, asked: Asked, number: int) -> bool:
    """Whether a message that ended, or is worked on, in the queue `number` is one of those that were asked for.

    It was published to the queue that was named, or is in it; if none was, to one that the connection may touch.
    """
    places = (asked.id[0], number)
    if asked.queue:
        return asked.queue in places
    scope = store.connections[asked.connection].scope
    names = [store.by_number[place].name for place in places if place in store.by_number]
    return scope is None or any(scope.covers(name) for name in names)


def answer(store: Store, asked: Asked, rests_on: int, value: dict[str, Any]) -> None:
    """Answer a request that waits."""
    forget(store, asked)
    store.reply(asked.connection, asked.request, rests_on, value)


def forget(store: Store, asked: Asked) -> None:
    """Let a request wait no more; it is not answered."""
    store.results.forget(asked)
    connection = store.connections.get(asked.connection)
    if connection is not None:
        connection.asked.pop(asked.request, None)
    if asked.timer is not None:
        store.wheel.cancel(asked.timer)
        asked.timer = None
