"""The API of dead-letter queues: dead messages by what they died of, and the way back."""

from __future__ import annotations

from typing import Final

from minibroker.contract import limits
from minibroker.contract.confirms import MessageId
from minibroker.session.dead import ErrorGroup, Where
from minibrokerd.http.requests import Ask, Failure, fitting, parse_id
from minibrokerd.http.shapes import Done, ErrorGroups, ErrorGroupView, Select

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
        first_unix_ms=round(group.first.timestamp() * 1_000),
        last_unix_ms=round(group.last.timestamp() * 1_000),
        example=str(group.example),
        key=group.group,
    )
