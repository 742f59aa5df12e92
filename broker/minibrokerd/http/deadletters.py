"""The API of dead-letter queues: dead messages by what they died of, and the way back."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from minibroker.contract import limits
from minibroker.contract.confirms import MessageId
from minibroker.session.dead import ErrorGroup, Redrive, Where
from minibrokerd.http.requests import Ask, Failure, fitting, parse_id
from minibrokerd.http.shapes import (
    Done,
    ErrorGroups,
    ErrorGroupView,
    NewRedrive,
    RedriveState,
    RedriveView,
    Select,
)

MOST_GROUPS: Final = 200


async def list_errors(ask: Ask) -> ErrorGroups:
    """Return the dead messages of a queue by what they died of."""
    groups = await ask.client.queue(ask.queue_name).error_groups()
    rows = [_row(group) for group in groups[:MOST_GROUPS]]
    return ErrorGroups(
        ask.queue_name, rows, sum(group.count for group in groups), len(groups) <= MOST_GROUPS
    )


async def redrive(ask: Ask) -> Done:
    """Send dead messages back to their origin: these ids, those of a filter, the oldest, or all."""
    wish = await ask.body(Select)
    queue = ask.client.queue(ask.queue_name)
    where = Where(group=wish.group) if wish.group is not None else None
    with fitting():
        ids = None if wish.ids is None else _some(wish.ids)
        moved = await queue.redrive(ids, wish.count, where=where)
    ask.changed("redrive", queue=ask.queue_name, messages=moved)
    return Done(moved)


async def start_redrive(ask: Ask) -> RedriveState:
    """Let the server send dead messages back by itself."""
    wish = await ask.body(NewRedrive)
    queue = ask.client.queue(ask.queue_name)
    with fitting():
        where = Where(
            error_class=wish.error_class,
            error_text=wish.error_text,
            cause=wish.cause,
            group=wish.group,
            key=wish.key,
            origin=wish.origin,
            older=wish.older_ms / 1_000,
            younger=wish.younger_ms / 1_000,
        )
        ids = None if wish.ids is None else _some(wish.ids)
        state = await queue.start_redrive(
            ids, where=where if where != Where() else None, rate=wish.rate, canary=wish.canary
        )
    ask.changed("start_redrive", queue=ask.queue_name)
    return _state(state)


async def show_redrive(ask: Ask) -> RedriveState:
    """Return how the redrive of a queue stands."""
    return _state(await ask.client.queue(ask.queue_name).redrive_state())


async def stop_redrive(ask: Ask) -> RedriveState:
    """Let it send no more."""
    state = await ask.client.queue(ask.queue_name).stop_redrive()
    if state is not None:
        ask.changed("stop_redrive", queue=ask.queue_name)
    return _state(state)


def _state(state: Redrive | None) -> RedriveState:
    if state is None:
        return RedriveState(None)
    ended = 0 if state.ended is None else _unix_ms(state.ended)
    started = _unix_ms(state.started)
    view = RedriveView(
        state.state, state.why, state.by, started, ended, state.rate, state.canary, state.redriven
    )
    return RedriveState(view)


def _unix_ms(time: datetime) -> int:
    return round(time.timestamp() * 1_000)


def _some(texts: list[str]) -> list[MessageId]:
    if not 0 < len(texts) <= limits.MAX_RUNS_PER_FRAME:
        raise Failure(400, "bad_value", f"a redrive is of 1 to {limits.MAX_RUNS_PER_FRAME} ids")
    return [parse_id(text) for text in texts]


def _row(group: ErrorGroup) -> ErrorGroupView:
    return ErrorGroupView(
        cause=group.cause,
        error_class=group.error_class,
        error_text=group.text,
        place=group.place,
        count=group.count,
        first_unix_ms=_unix_ms(group.first),
        last_unix_ms=_unix_ms(group.last),
        example=str(group.example),
        key=group.group,
    )
