"""The API of queues: lists, one, its settings, and what ends it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.limits import DLQ_SUFFIX
from minibroker.contract.settings import SETTINGS, check_settings
from minibrokerd.core.model.policies import origins_of
from minibrokerd.core.model.queues import Queue
from minibrokerd.http.log_groups import offsets_of, position_of
from minibrokerd.http.requests import Ask, Failure
from minibrokerd.http.shapes import (
    ActiveView,
    CircuitView,
    Done,
    KeyCircuitsView,
    QueueList,
    QueueView,
    SettingView,
)
from minibrokerd.http.survey import SORTS, dlq_of, listed, rest_of, rows_of
from minibrokerd.monitoring.ages import oldest_of

MOST_ROWS: Final = 1_000


async def list_queues(ask: Ask) -> QueueList:
    """Return a page of queues."""
    if not ask.subject.is_open:
        raise Failure(503, "not_ready", ask.subject.not_ready)
    sort = ask.text("sort") or "name"
    if sort not in SORTS:
        raise Failure(
            400, "bad_value", f"sort is {sort!r:.100}; it must be one of {', '.join(SORTS)}"
        )
    count = ask.number("count", 100, MOST_ROWS)
    try:
        found, total, then = await listed(
            ask.subject,
            match=ask.pattern("match"),
            sort=sort,
            after=ask.text("after"),
            count=count,
            dlqs=ask.text("dlqs", "1") != "0",
        )
    except ValueError as error:
        raise Failure(400, "bad_value", str(error)) from error
    return QueueList(await rows_of(ask.subject, found), total, then)


async def show_queue(ask: Ask) -> QueueView:
    """Return one queue."""
    queue = ask.queue()
    return QueueView(
        queue.name,
        queue.is_dlq,
        oldest_of(ask.subject, queue),
        queue.statistics(),
        dict(queue.settings),
        origins_of(queue),
        dlq_of(ask.subject, queue),
        queue.live_bytes,
        *rest_of(ask.subject, queue),
        _circuit_of(ask, queue),
        _key_circuits_of(queue),
        _active_of(queue),
        ask.subject.store.owners.client_of(ask.subject.store, queue),
        offsets_of(queue),
        position_of(queue),
    )


def _circuit_of(ask: Ask, queue: Queue) -> CircuitView | None:
    circuit = queue.group.circuit
    return None if circuit is None else CircuitView(**circuit.said(ask.subject.store))


def _key_circuits_of(queue: Queue) -> KeyCircuitsView | None:
    circuits = queue.group.key_circuits
    return None if circuits is None else KeyCircuitsView(len(circuits.open), circuits.failing)


def _active_of(queue: Queue) -> ActiveView | None:
    single = queue.group.single
    return None if single is None else ActiveView(**single.said())


async def show_times(ask: Ask) -> dict[str, Any]:
    """Return how long messages wait and run, and how many handlers would be enough."""
    target_ms = ask.number("target_ms", 300_000, limits.MAX_DELAY_MS) or 1
    return asdict(await ask.client.queue(ask.queue_name).times(target=target_ms / 1_000))


async def set_queue(ask: Ask) -> dict[str, Any]:
    """Make a queue, or change settings of it; return all of them."""
    wish = await ask.body(dict[str, int | str])
    try:
        settings = check_settings(wish)
    except ValueError as error:
        raise Failure(400, "bad_value", str(error)) from error
    ask.make(ask.queue_name)
    changes: dict[str, Any] = {**settings}
    made = await ask.client.queue(ask.queue_name).set(**changes)
    ask.changed(
        "set", queue=ask.queue_name, **{f"to_{name}": value for name, value in settings.items()}
    )
    return made


async def delete_queue(ask: Ask) -> Done:
    """End a queue and its dead-letter queue."""
    name = ask.queue_name
    ended = await ask.client.queue(name).delete(force=ask.text("force") == "1")
    ask.changed("delete_queue", queue=name, messages=ended)
    return Done(ended)


async def list_settings(ask: Ask) -> list[SettingView]:
    """Return the table of settings."""
    return [
        SettingView(row.name, row.default, row.low, row.high, list(row.choices), row.meaning)
        for row in SETTINGS.values()
    ]


def source_of(name: str) -> str:
    """Return the queue that a dead-letter queue belongs to, or the name itself."""
    return name.removesuffix(DLQ_SUFFIX)
