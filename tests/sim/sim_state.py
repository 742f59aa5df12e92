"""All that a broker knows when it begins to lead, in a form to compare with what another one knows."""

from __future__ import annotations

from typing import Any, Final

from contents import items_of
from sim_broker import contents

from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.state import Store

IDS: Final = "ids of messages"
SESSIONS: Final = "sessions"


def state_of(store: Store) -> dict[str, Any]:
    """Return queues with their settings and messages, and sessions with what they were answered.

    Times are from now on: what log time a start begins with is its own affair.
    """
    found: dict[str, Any] = {queue.name: _queue(store, queue) for queue in store.queues.values()}
    found[IDS] = contents(store)
    found[SESSIONS] = {
        session.id: {
            number: (outcome.checksum, outcome.size, outcome.results, outcome.lost)
            for number, outcome in session.window.items()
        }
        for session in store.sessions.values()
    }
    return found


def _queue(store: Store, queue: Queue) -> Any:
    messages = []
    for state, item in items_of(queue):
        wait_ms = max(item.ready_at_ms - store.now_ms, 0)
        names = ("attempts", "history", "redriven", "releases")
        own = [getattr(item, name, None) or None for name in names]
        lease = None
        if state.name == "BEGUN":
            lease = (item.token, item.lease_ms, item.delivery.session)
        for sequence in range(item.first, item.stop):
            at = (item.block.origin, sequence)
            messages.append((at, state.name, item.key, item.marked, wait_ms, repr(own), lease))
    messages.sort(key=lambda message: message[0])
    return queue.number, queue.next_sequence, queue.home, queue.settings, messages


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Return where two states differ first; empty: nowhere.

    What left memory in one of them is compared by its id alone, which is in `IDS`. The first one may know more
    answers: it has read what was trimmed since.
    """
    for name in sorted(one.keys() | other.keys()):
        mine, others = one.get(name), other.get(name)
        if name == SESSIONS:
            mine, others = _missing(one[name], other[name]), {}
        if mine is not None and others is not None and name not in (IDS, SESSIONS):
            both = {row[0] for row in mine[-1]} & {row[0] for row in others[-1]}
            mine, others = _of(mine, both), _of(others, both)
        if mine != others:
            return f"{name}: {mine!r:.1500}, and {others!r:.1500}"
    return ""


def _missing(one: dict[int, Any], other: dict[int, Any]) -> dict[int, Any]:
    """Return what the other one knows of sessions and the first one does not."""
    known = {
        (id, number, repr(said)) for id, window in one.items() for number, said in window.items()
    }
    return {
        id: lacks
        for id, window in other.items()
        if (lacks := [n for n, said in window.items() if (id, n, repr(said)) not in known])
    }


def _of(queue: Any, ids: set[Any]) -> Any:
    return (*queue[:-1], [row for row in queue[-1] if row[0] in ids])
