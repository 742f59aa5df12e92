"""Retained logs as an application asks for them, and as the server shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.errors import BadName, BadValue
from minibroker.contract.limits import DLQ_SUFFIX, GROUP_MARK
from minibroker.contract.log_commands import OFFSET, STARTS, TIME
from minibroker.session.key_wishes import checked_key
from minibroker.session.spans import Span, milliseconds, of_type, shown, whole
from minibroker.session.wishes import Wish
from minibroker.session.wishes import check_name as check_queue

Start = str | int | datetime
READ_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group of a retained log as the server shows it.

    Its messages are those of the queue `queue`. `position` is the next offset that it is fed; `lag` is about how
    many messages stand behind that, `waiting` how many in front of it have not begun, `begun` are worked on;
    `seeks` is how often it was moved; `only_key` is that of a replay that is under way, if it is of one key.
    """

    queue: str
    position: int
    lag: int
    waiting: int
    begun: int
    seeks: int
    only_key: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name in its log."""
        return self.queue.partition(GROUP_MARK)[2]


@dataclass(frozen=True, slots=True)
class LogInfo:
    """A retained log as the server shows it: it has `messages` with offsets from `first` to below `stop`.

    `next_offset` is that of the next publish: what is between was published, and is on its way into the files.
    """

    first: int
    stop: int
    next_offset: int
    messages: int
    size_bytes: int
    groups: list[GroupInfo]


def check_group(name: str) -> str:
    """Return the name of a group; TypeError, BadName if it can be none."""
    check_queue(name)
    if GROUP_MARK in name or name.endswith(DLQ_SUFFIX):
        raise BadName(
            f"{shown(name)} is no name of a group: it has a {GROUP_MARK}, or a suffix of DLQs"
        )
    return name


def start_fields(start: Start) -> dict[str, object]:
    """Return where a group or a reader starts: a word, an offset, or a time.

    Raises:
        TypeError: it is nothing of these, or a time without a zone.
        BadValue: it is another word, or no offset.
    """
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise TypeError("start is a datetime without a time zone; give it one")
        return {"start": TIME, "at": max(int(start.timestamp() * 1_000), 1)}
    if isinstance(start, str):
        words = [word for word in STARTS if word not in (OFFSET, TIME)]
        if start not in words:
            raise BadValue(
                f"start is {shown(start)}; it must be {', '.join(words)}, an offset, or a datetime"
            )
        return {"start": start, "at": 0}
    return {"start": OFFSET, "at": whole("start", start, 0, limits.MAX_OFFSET)}


def group_set(log: str, group: str, start: Start) -> Wish:
    """Return the request that makes a group."""
    return "log_group_set", {"queue": log, "group": check_group(group), **start_fields(start)}, b""


def group_seek(log: str, group: str, start: Start, key: str | None) -> Wish:
    """Return the request that moves a group; with a key, only messages of that come again."""
    fields = {"queue": log, "group": check_group(group), **start_fields(start)}
    if key is not None:
        fields["key"] = checked_key(key)
    return "log_group_seek", fields, b""


def show(log: str, after: str) -> Wish:
    """Return the request for a page of what a log has."""
    return "log_show", {"queue": log, "after": after}, b""


def read(
    log: str, start: Start, most_bytes: int, wait: Span | None
) -> tuple[str, dict[str, Any], bytes]:
    """Return the request that reads a page."""
    fields: dict[str, Any] = {"queue": log, **start_fields(start)}
    fields["most_bytes"] = whole("most_bytes", most_bytes, 1, limits.MAX_LOG_READ_BYTES)
    fields["wait_ms"] = 0 if wait is None else milliseconds("wait", wait, limits.MAX_WAIT_MS)
    return "log_read", fields, b""


def read_group(value: dict[str, Any]) -> GroupInfo:
    """Return a group of an answer."""
    of_type("group", value, dict, "a map")
    return GroupInfo(
        value["queue"],
        value["position"],
        value["lag"],
        value["waiting"],
        value["begun"],
        value["seeks"],
        value.get("only_key") or None,
    )


def read_info(pages: list[dict[str, Any]]) -> LogInfo:
    """Return what the pages of an answer say of a log."""
    last = pages[-1]
    return LogInfo(
        last["first"],
        last["stop"],
        last["next_offset"],
        last["messages"],
        last["bytes"],
        [read_group(each) for page in pages for each in page["groups"]],
    )
