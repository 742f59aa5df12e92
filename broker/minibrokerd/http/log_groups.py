"""The API of retained logs: what one has, its newest messages, and its groups, which can be made and moved."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec

from minibroker.contract.errors import BodyError
from minibroker.contract.limits import GROUP_MARK
from minibroker.session.log_pages import LogMessage
from minibroker.session.log_wishes import GroupInfo, Start
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.retained import Feeder, RetainedLog
from minibrokerd.http.requests import Ask, Failure
from minibrokerd.text.values import text_of

NEWEST: Final = 20  # messages that the page shows
PREVIEW_CHARS: Final = 200


class OffsetsView(msgspec.Struct):
    """What a retained log has: in its files offsets from `first` to below `stop`; the next publish gets `next`."""

    first: int
    stop: int
    next: int
    messages: int
    bytes: int
    groups: int


class PositionView(msgspec.Struct):
    """Where a group is in its log, and how many messages stand behind that."""

    log: str
    position: int
    lag: int


class GroupView(msgspec.Struct):
    """A group of a retained log; `waiting` and `begun` were fed to its `queue`, `lag` stand behind `position`."""

    group: str
    queue: str
    position: int
    lag: int
    waiting: int
    begun: int
    seeks: int


class GroupList(msgspec.Struct):
    """The groups of a retained log, by their names."""

    groups: list[GroupView]


class Place(msgspec.Struct, forbid_unknown_fields=True):
    """A place in a log: `first`, `last`, `next` or an offset; or a time, if `time_unix_ms` is not 0."""

    start: int | str = "first"
    time_unix_ms: int = 0


class Newest(msgspec.Struct):
    """A message of a log as the page shows it."""

    offset: int
    published_unix_ms: int
    key: str
    body_text: str


def offsets_of(queue: Queue) -> OffsetsView | None:
    """Return what a log has; None: it is none."""
    there = queue.group.retained
    return OffsetsView(**there.said()[1]) if isinstance(there, RetainedLog) else None


def position_of(queue: Queue) -> PositionView | None:
    """Return where a group is; None: it is none."""
    there = queue.group.retained
    return PositionView(**there.said()[1]) if isinstance(there, Feeder) else None


async def list_groups(ask: Ask) -> GroupList:
    """Return the groups of a log."""
    return GroupList([_view(each) for each in (await ask.client.log(ask.queue_name).show()).groups])


async def make_group(ask: Ask) -> GroupView:
    """Make a group, unless it is there."""
    log, group, start = ask.queue_name, _group_of(ask), await _start(ask)
    ask.make(log + GROUP_MARK + group)
    made = await ask.client.log(log).declare_group(group, start)
    ask.changed("make_group", queue=made.queue)
    return _view(made)


async def move_group(ask: Ask) -> GroupView:
    """Move a group to another place: what it has not ended ends there."""
    moved = await ask.client.log(ask.queue_name).seek(_group_of(ask), await _start(ask))
    ask.changed("move_group", queue=moved.queue)
    return _view(moved)


async def newest_of(ask: Ask, offsets: OffsetsView) -> list[Newest]:
    """Return the newest messages of a log, the last one first."""
    log, at = ask.client.log(ask.queue_name), max(offsets.stop - NEWEST, offsets.first)
    found: list[Newest] = []
    while at < offsets.stop:
        page = await log.read(at)
        found += [_newest(each) for each in page]
        at = max(page.next, at + 1)
    return found[: -NEWEST - 1 : -1]


def _newest(message: LogMessage[object]) -> Newest:
    try:
        body = message.body
    except BodyError:
        body = message.raw
    text = text_of(body)[:PREVIEW_CHARS]
    return Newest(message.offset, message.run.published_unix_ms, message.key or "", text)


def _group_of(ask: Ask) -> str:
    return str(ask.request.path_params["group"])


async def _start(ask: Ask) -> Start:
    place = await ask.body(Place)
    if not place.time_unix_ms:
        return place.start
    try:
        return datetime.fromtimestamp(place.time_unix_ms / 1_000, UTC)
    except (OverflowError, ValueError, OSError) as error:  # of no year that there is
        raise Failure(400, "bad_value", f"time_unix_ms is {place.time_unix_ms}") from error


def _view(group: GroupInfo) -> GroupView:
    return GroupView(
        group.name,
        group.queue,
        group.position,
        group.lag,
        group.waiting,
        group.begun,
        group.seeks,
    )
