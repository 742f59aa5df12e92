"""Results: what a message came to is kept for a while, and told to those who ask before or after.

An entry is kept where somebody asked for it: the queue by its setting `result_ms`, or the worker with `complete`.
It stands in the batch of the end that it tells of, and is told when that is safe.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from minibroker.contract import limits
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.kept import RESULT
from minibrokerd.core.model.messages import MEMORY, NEVER, Message
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import AttemptMeta
from minibrokerd.core.model.refusals import Broken, Refused
from minibrokerd.core.model.results import Asked, Id, Outcome
from minibrokerd.core.model.sessions import Connection
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import Timer
from minibrokerd.core.verbs.runs import read_ids

pack = msgspec.msgpack.Encoder().encode
unpack_texts = msgspec.msgpack.Decoder(tuple[str, str]).decode


# ---- what is kept ----


def keep(
    store: Store,
    queue: Queue,
    id: Id,
    outcome: Outcome,
    value: bytes = b"",
    kept_ms: int = 0,
    *,
    logged: bool = True,
) -> None:
    """Keep what a message of `queue` came to, for `kept_ms` (0: as the queue says), and tell those who wait."""
    entry_value = (int(outcome), value, store.unix_ms, queue.number)
    expires_unix_ms = store.unix_ms + (kept_ms or queue.setting("result_ms"))
    store.kept.put(store, RESULT, id, entry_value, expires_unix_ms, logged=logged)
    store.results.progress.pop(id, None)
    for asked in list(store.results.waiting.get(id, ())):
        if _may_know(store, asked, queue.number):
            _answer(store, asked, store.open_batch if logged else 0, _value(entry_value))


def keep_dead(store: Store, queue: Queue, message: Message, entry: AttemptMeta | None) -> None:
    """Keep that a message is dead, and of which error."""
    texts = ("", "") if entry is None else (entry.error_class or entry.cause, entry.error_text)
    id, is_logged = (message.block.origin, message.sequence), message.block.durability != MEMORY
    keep(store, queue, id, Outcome.DEAD, pack(texts), logged=is_logged)


def keep_all(store: Store, queue: Queue, ids: Iterable[Id], outcome: Outcome) -> None:
    """Keep that messages came to an end without a result."""
    for id in ids:
        keep(store, queue, id, outcome)


def tell_purged(store: Store, queue: Queue) -> None:
    """Every message of a queue has ended at once: nothing is kept of each, but those who wait for one hear it."""
    for id, waiting in list(store.results.waiting.items()):
        for asked in list(waiting):
            if queue.number in (id[0], asked.queue) and _may_know(store, asked, queue.number):
                value = _value((int(Outcome.PURGED), b"", store.unix_ms, queue.number))
                _answer(store, asked, store.open_batch, value)


def _value(kept: Any) -> dict[str, Any]:
    outcome, value, unix_ms, _ = kept
    answer: dict[str, Any] = {"state": Outcome(outcome).name, "ended_unix_ms": unix_ms}
    if outcome == Outcome.DEAD:
        answer["error_class"], answer["error_text"] = unpack_texts(value)
    elif value:
        answer["result"] = value
    return answer


# ---- who asks ----


def result(store: Store, frame: Frame, part: Any) -> None:
    """Answer what a message came to: now, or when it has come to something within wait_ms."""
    number = store.queue(part.queue).number if part.queue else 0
    runs = read_ids(frame, part)
    if len(runs) != 1 or runs[0][3] != 1:
        raise Refused("bad_value", f"one result is asked for at a time; {part.runs} runs came")
    assert frame.request is not None, "it needs a request number"
    asked = Asked(frame.connection, frame.request, number, runs[0][1:3], part.mark)
    entry = store.kept.find(store, RESULT, asked.id)
    if entry is not None and _may_know(store, asked, int(entry.value[3])):
        rests_on = 0 if entry.batch == NEVER else entry.batch
        store.reply(frame.connection, frame.request, rests_on, _value(entry.value))
        return
    running = _running(store, asked)
    if not part.wait_ms or (part.mark is not None and running.get("mark", part.mark) != part.mark):
        store.reply(frame.connection, frame.request, 0, running)
    else:
        _wait(store, store.connections[frame.connection], asked, part)


def _may_know(store: Store, asked: Asked, number: int) -> bool:
    """Whether a message that ended, or is worked on, in the queue `number` is one of those that were asked for.

    It was published to the queue that was named, or is in it; if none was, to one that the connection may touch.
    """
    places = (asked.id[0], number)
    if asked.queue:
        return asked.queue in places
    scope = store.connections[asked.connection].scope
    names = [store.by_number[place].name for place in places if place in store.by_number]
    return scope is None or any(scope.covers(name) for name in names)


def _wait(store: Store, connection: Connection, asked: Asked, part: Any) -> None:
    if asked.request in connection.asked:
        raise Broken(f"a result needs a request number of its own; {asked.request} waits already")
    if len(connection.asked) >= limits.MAX_RECEIVES_PER_CONNECTION:
        raise Refused(
            "limit_reached",
            f"{len(connection.asked)} requests of this connection wait for results, as many as may; "
            "await some of them first",
        )
    connection.asked[asked.request] = asked
    store.results.wait(asked)
    asked.timer = store.set_timer(_wait_over, asked, store.now_ms + part.wait_ms)


def _wait_over(store: Store, timer: Timer, asked: Asked) -> None:
    asked.timer = None
    _answer(store, asked, 0, _running(store, asked))


def _running(store: Store, asked: Asked) -> dict[str, Any]:
    answer: dict[str, Any] = {"state": "NONE"}
    progress = store.results.progress.get(asked.id)
    if progress is not None and _may_know(store, asked, progress.queue):
        answer["mark"], answer["permille"], answer["note"] = progress[:3]
    return answer


def _answer(store: Store, asked: Asked, rests_on: int, value: dict[str, Any]) -> None:
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


# ---- progress ----


def progressed(store: Store, queue: Queue, id: Id, permille: int, note: str) -> None:
    """Note how far a message is, and tell those who wait for its result and want to know."""
    store.results.note(id, permille, note, queue.number)
    for asked in list(store.results.waiting.get(id, ())):
        if asked.mark is not None and _may_know(store, asked, queue.number):
            _answer(store, asked, 0, _running(store, asked))
