"""Results: what a message came to is kept for a while, and told to those who ask before or after.

An entry is kept where somebody asked for it: the queue by its setting `result_ms`, or the worker with `complete`.
It stands in the batch of the end that it tells of, and is told when that is safe. Who waits for a message that is
nowhere would wait in vain: that it never was is seen at once. That it has ended is looked for a second later, of
all that are waited for then together, so that a request for a message at work costs no walk over all that are.
"""

from __future__ import annotations

from typing import Any, Final

from minibroker.contract import limits
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.kept import RESULT
from minibrokerd.core.model.messages import NEVER
from minibrokerd.core.model.noting import answer, forget, may_know, value_of
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.refusals import Broken, Refused
from minibrokerd.core.model.results import Asked, Id
from minibrokerd.core.model.sessions import Connection
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import TICK_MS, Timer
from minibrokerd.core.verbs.chaining import places_of, unknown_text
from minibrokerd.core.verbs.runs import read_ids

LOOK_MS: Final = 1_000
MOST_IDS: Final = 1_000  # that are looked for in one apply

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
    if entry is not None and may_know(store, asked, int(entry.value[3])):
        rests_on = entry.batch
        if rests_on == NEVER:  # it is in memory alone
            home = store.by_number.get(int(entry.value[3]), store.nowhere)
            rests_on = home.last_batch  # the end that it tells of may be in the log
        store.reply(frame.connection, frame.request, rests_on, value_of(entry.value))
        return
    running = _running(store, asked)
    if not part.wait_ms or (part.mark is not None and running.get("mark", part.mark) != part.mark):
        store.reply(frame.connection, frame.request, 0, running)
    elif _never_was(store, asked.id):
        raise Refused("unknown_message", unknown_text(asked.id))
    else:
        _wait(store, store.connections[frame.connection], asked, part)


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
    if part.wait_ms > LOOK_MS:
        if not store.results.new:
            store.set_timer(_look, None, store.now_ms + LOOK_MS)
        store.results.new[asked.id] = None


def _never_was(store: Store, id: Id) -> bool:
    home = store.by_number.get(id[0])
    if home is None:
        return id[0] >= store.next_queue_number
    return id[1] >= home.next_sequence


def _look(store: Store, timer: Timer, argument: None) -> None:
    """Tell those who wait for messages that are nowhere: nothing can come of them any more."""
    results = store.results
    new = [results.new.popitem()[0] for _ in range(min(MOST_IDS, len(results.new)))]
    if results.new:
        store.set_timer(_look, None, store.now_ms + TICK_MS)
    ids = [id for id in new if id in results.waiting]
    places = places_of(store, ids)
    for id in () if places is None else set(ids) - places:
        home = store.by_number.get(id[0], store.nowhere)
        for asked in list(results.waiting[id]):
            forget(store, asked)
            error: dict[str, Any] = {"op": "error", "code": "unknown_message"}
            error |= {"text": unknown_text(id), "retryable": False, "request": asked.request}
            store.send(asked.connection, home.last_batch, error)


def _wait_over(store: Store, timer: Timer, asked: Asked) -> None:
    asked.timer = None
    answer(store, asked, 0, _running(store, asked))


def _running(store: Store, asked: Asked) -> dict[str, Any]:
    answer: dict[str, Any] = {"state": "NONE"}
    progress = store.results.progress.get(asked.id)
    if progress is not None and may_know(store, asked, progress.queue):
        answer["mark"], answer["permille"], answer["note"] = progress[:3]
    return answer


# ---- progress ----


def progressed(store: Store, queue: Queue, id: Id, permille: int, note: str) -> None:
    """Note how far a message is, and tell those who wait for its result and want to know."""
    store.results.note(id, permille, note, queue.number)
    for asked in list(store.results.waiting.get(id, ())):
        if asked.mark is not None and may_know(store, asked, queue.number):
            answer(store, asked, 0, _running(store, asked))
