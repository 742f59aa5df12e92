"""The schedules that an application declares beside its handlers, and how the worker tells the server of them.

A schedule lives in the server. What the worker does at its start is to set it as the code says, which changes
nothing where it is so already: its next time stays, and so does a pause. One that was taken out of the code stays,
for the server does not know whose it was; with an `owner`, the worker deletes those of the same owner that its
code has no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from minibroker.aio.broker import Broker
from minibroker.contract.errors import (
    BadValue,
    ConnectionLost,
    NotSent,
    OutcomeUnknown,
    Timeout,
)
from minibroker.session import schedule_wishes
from minibroker.worker.declared import Declared

OWNER_HEADER: Final = "minibroker-owner"
AGAIN_S: Final = 1.0
_AWAY: Final = (ConnectionLost, NotSent, OutcomeUnknown, Timeout)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One schedule; `queue` is empty where it is that of the handler. `how` is as for `Schedules.set`."""

    function: Callable[..., Any]
    cron: str
    name: str
    queue: str
    body: Any
    how: Mapping[str, Any]


def check_schedule(cron: str, name: str, queue: str, body: Any, how: Mapping[str, Any]) -> None:
    """Check what can be checked here; whether `cron` is one, only the server knows.

    Raises:
        TypeError, BadValue, TooLarge: the server could never take it.
    """
    schedule_wishes.change(name or "name", cron, queue or "queue", body, **how)
    if OWNER_HEADER in (how["headers"] or {}):
        raise BadValue(f"the header {OWNER_HEADER} is of the owner of the app")


def placed(schedules: Sequence[Scheduled], handlers: Sequence[Declared]) -> list[Scheduled]:
    """Return schedules, each with its name and queue.

    Raises:
        ValueError: one has no queue, or a name of another; says what to write.
    """
    found: dict[str, Scheduled] = {}
    for each in schedules:
        called = getattr(each.function, "__qualname__", repr(each.function))
        queue = each.queue or _queue_of(each.function, called, handlers)
        name = each.name or f"{queue}.{called.rpartition('.')[2]}"
        if name in found:
            raise ValueError(
                f"two schedules are called {name!r}: give one of them a name, @app.schedule(cron, name=...)"
            )
        found[name] = Scheduled(each.function, each.cron, name, queue, each.body, each.how)
    return list(found.values())


def _queue_of(function: Callable[..., Any], called: str, handlers: Sequence[Declared]) -> str:
    queues = [each.queue for each in handlers if each.function is function]
    if len(queues) != 1:
        why = "handles several queues" if queues else "handles no queue"
        raise ValueError(
            f"{called} has a schedule and {why}: say @app.schedule(cron, queue=...)"
            + ("" if queues else ", or declare it with @app.handler(queue), too")
        )
    return queues[0]


async def declare_all(
    broker: Broker, schedules: Sequence[Scheduled], owner: str, queues: Collection[str]
) -> list[str]:
    """Have the server keep these schedules; return the names of those that were deleted.

    `queues`: only those that publish there, and nothing is deleted; empty: all.

    Raises:
        MinibrokerError: the server refused one. While it is away it is asked again, for as long as it takes.
    """
    for each in schedules:
        if queues and each.queue not in queues:
            continue
        headers = dict(each.how["headers"] or {}) | ({OWNER_HEADER: owner} if owner else {})
        how = {**each.how, "headers": headers or None}
        asking = partial(broker.schedules.set, each.name, each.cron, each.queue, each.body, **how)
        await _insist(asking)
    if not owner or queues:
        return []
    known = {each.name for each in schedules}
    there = await _insist(broker.schedules.list)
    old = [
        each.name
        for each in there
        if each.name not in known and each.headers.get(OWNER_HEADER) == owner
    ]
    for name in old:
        await _insist(partial(broker.schedules.delete, name))
    return old


async def _insist(ask: Callable[[], Any]) -> Any:
    """Ask until there is an answer: a schedule that is set or deleted twice is as one that was once."""
    while True:
        try:
            return await ask()
        except _AWAY:
            await asyncio.sleep(AGAIN_S)
