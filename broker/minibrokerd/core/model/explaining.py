"""Why a message is not running: a function of what is there now. It changes nothing, and promises nothing.

What dispatch asks is asked here in the order in which a person would: is its key open, is somebody there, are
messages handed out at all, may one of the consumers take more, does it read, is the message in memory, is it its
turn. The first no is the reason; `minibroker.contract.reasons` has the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from minibroker.contract.limits import DLQ_SUFFIX
from minibrokerd.core.model.absent import MOST_NAMED
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.deliveries import Consumer, Delivery
from minibrokerd.core.model.messages import Item, Message, State, is_dead
from minibrokerd.core.model.pauses import QUEUE
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import AttemptMeta
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import TICK_MS

FOR_EVER_MS: Final = 2**60  # a hold that no start has set ends never: the server is stopping


class Why(NamedTuple):
    """The answer: a state, the code of a reason, times in unix ms (0: none), and who or what it is because of."""

    state: str
    reason: str
    since_unix_ms: int = 0
    until_unix_ms: int = 0
    by: str = ""


def why_waits(
    store: Store, queue: Queue, item: Item | ColdRun, at: Sequence[Consumer], has_key: str = ""
) -> Why:
    """Return why a message of `item`, which is READY, is not handed out; `at` are all consumers of its queue.

    `has_key` says who has the messages of its key that are in work.
    """
    pause = store.pauses.get((QUEUE, queue.number, ""))
    if pause is not None:
        state = State.READY.name
        return Why(state, "queue_paused", pause.since_unix_ms, pause.until_unix_ms, pause.by)
    circuit, keys, of, said = queue.group.circuit, queue.group.keys, "", dict[str, Any]()
    if circuit is not None and circuit.state:
        said = circuit.said(store)
    elif keys is not None and not isinstance(item, ColdRun):
        of_key, of = keys.circuit_of(item.key), "key_"
        said = of_key.said(store) if of_key is not None else {}
    if said:
        reason = of + ("circuit_open" if said["until_unix_ms"] else "circuit_probing")
        return Why(
            State.READY.name, reason, said["since_unix_ms"], said["until_unix_ms"], said["why"]
        )
    reason, until_ms, by = _what_keeps(store, queue, item, at, has_key)
    since = 0 if isinstance(item, ColdRun) else store.unix_ms_at(item.ready_at_ms)
    return Why(State.READY.name, reason, since, store.unix_ms_at(until_ms) if until_ms else 0, by)


def _what_keeps(
    store: Store, queue: Queue, item: Item | ColdRun, at: Sequence[Consumer], has_key: str
) -> tuple[str, int, str]:
    """Return (reason, log time of its end or 0, by whom)."""
    keys = queue.group.keys
    if keys is not None:
        closed = keys.why_closed("" if isinstance(item, ColdRun) else item.key)
        if closed is not None and closed.first is not None:
            first = closed.first
            return closed.reason, first.ready_at_ms, f"{first.block.origin}-{first.sequence}"
        if closed is not None:
            until_ms = closed.until_ms if closed.until_ms < FOR_EVER_MS else 0
            return closed.reason, until_ms, has_key
    if not at:
        return "no_consumer", 0, ""
    if store.paused:
        return "no_space", 0, ""
    if not store.hands_out(queue.group):
        if store.is_stopping:
            return "stopping", 0, ""
        absent = store.absent
        return (
            "starting",
            store.hold_until_ms,
            _listed(absent.names(queue.group, MOST_NAMED), absent.count(queue.group)),
        )
    higher = _higher(store, queue, item)
    if higher is not None:
        return higher
    single = queue.group.single
    if single is not None:
        active = [consumer for consumer in at if consumer is single.holder]
        if not active and queue.group.deliveries:
            return "not_active", 0, single.client or "a client without a name"
        at = active or at
    hungry = [consumer for consumer in at if consumer.credit() > 0]
    if not hungry:
        return "no_credit", 0, _clients(store, at)
    working = [each for each in hungry if not store.connections[each.connection].resting]
    if not working:
        return "worker_paused", 0, _clients(store, hungry)
    reading = [consumer for consumer in working if _reads(store, consumer)]
    if not reading:
        return "not_reading", 0, _clients(store, working)
    if isinstance(item, ColdRun):
        return "reading_back", 0, ""
    if sum(consumer.credit() for consumer in reading) < queue.group.lanes.ready:
        return "in_line", 0, ""
    return "next", 0, ""


def _higher(store: Store, queue: Queue, item: Item | ColdRun) -> tuple[str, int, str] | None:
    """Return what is said where messages of higher priorities go first; None: none do."""
    group = queue.group
    count = 0
    for lanes in group.lanes.levels:
        if lanes.has(item):
            break
        count += lanes.ready if lanes.turns else 0
    else:
        return None
    if not count:
        return None
    by = f"{count} message{'s' if count > 1 else ''}"
    if not group.max_wait_ms:
        return "outranked", 0, by
    if group.lanes.first_by_age(store.now_ms - group.max_wait_ms) is lanes:
        return None  # it, or one beside it, waited for long enough
    if isinstance(item, ColdRun):
        return "outranked_until", 0, by  # only its record says since when it waits
    until_ms = item.ready_at_ms + group.max_wait_ms
    return ("outranked_until", until_ms, by) if until_ms > store.now_ms else None


def why_delayed(store: Store, queue: Queue, item: Item) -> Why:
    """Return why a message that is DELAYED is."""
    state = State.DELAYED.name
    last = item.history[-1] if isinstance(item, Message) and item.history else None
    if is_dead(item):
        since = last.ended_unix_ms if last is not None else 0
        return Why(state, "dlq_full", since, 0, queue.name + DLQ_SUFFIX)
    chain = store.chains.waiting.get((item.block.origin, item.first)) if store.chains.ids else None
    if chain is not None:
        return Why(state, "waits_for", 0, 0, chain.says())
    until = store.unix_ms_at(item.ready_at_ms)
    if last is None or item.releases:  # a release waits, too, from the second one on
        return Why(state, "delayed", 0, until)
    return Why(state, "retry_delay", last.ended_unix_ms, until, _error(last))


def why_held(store: Store, delivery: Delivery, item: Item) -> Why:
    """Return by whom a message that was delivered is held or worked on."""
    session = store.sessions.get(delivery.session)
    by = session.client if session is not None else ""
    if not isinstance(item, Message) or item.state is not State.BEGUN:
        return Why(State.HELD.name, "held", 0, 0, by)
    armed = item.timer is not None and item.timer.armed
    until = store.unix_ms_at(item.timer.tick * TICK_MS) if item.timer is not None and armed else 0
    reason = "running" if session is not None and session.connected else "worker_away"
    return Why(State.BEGUN.name, reason, item.started_unix_ms, until, by)


def why_dead(why: Why, item: Item | ColdRun) -> Why:
    """Return the answer for a message that was looked for in its source, and lies in the dead-letter queue."""
    last = item.history[-1] if isinstance(item, Message) and item.history else None
    if last is None:
        return Why(why.state, "dead", 0, 0, "its attempts are not in memory")
    return Why(why.state, "dead", last.ended_unix_ms, 0, _error(last))


def _reads(store: Store, consumer: Consumer) -> bool:
    """Whether deliveries may go to a consumer; one that only waits for a turn of the shell gets them at once."""
    connection = store.connections[consumer.connection]
    return not (connection.paused or connection.silent)


def _clients(store: Store, consumers: Sequence[Consumer]) -> str:
    """Return names of clients, those of the first few consumers."""
    sessions = dict.fromkeys(store.connections[each.connection].session for each in consumers)
    names = [session.client or "a client without a name" for session in sessions]
    return _listed(names[:MOST_NAMED], len(names))


def _listed(names: list[str], count: int) -> str:
    more = [f"{count - len(names)} more"] if count > len(names) else []
    return ", ".join(names + more)


def _error(attempt: AttemptMeta) -> str:
    error = ": ".join(filter(None, (attempt.error_class, attempt.error_text.partition("\n")[0])))
    return f"{attempt.cause}, {error}" if error else attempt.cause
