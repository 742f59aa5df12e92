"""All that a broker knows when it begins to lead, in a form to compare with what another one knows."""

from __future__ import annotations

from typing import Any

from contents import items_of

from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.state import Store


def state_of(store: Store) -> dict[str, Any]:
    """Return queues with their settings and messages, and sessions with what they were answered.

    Times are from now on: what log time a start begins with is its own affair.
    """
    found: dict[str, Any] = {queue.name: _queue(store, queue) for queue in store.queues.values()}
    found["sessions"] = {
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
    """Return where two states differ first; empty: nowhere."""
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            return f"{name}: {one.get(name)!r:.1500}, and {other.get(name)!r:.1500}"
    return ""
