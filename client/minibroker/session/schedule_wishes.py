"""Schedules as an application asks for them, and as the server shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from minibroker.contract import limits
from minibroker.contract.bodies import decode_body, decode_headers
from minibroker.contract.confirms import Confirm
from minibroker.contract.errors import BadValue, TooLarge
from minibroker.contract.schedule_commands import MISFIRES
from minibroker.contract.wire import pack_strings
from minibroker.session import wishes
from minibroker.session.outbox import TERMS
from minibroker.session.spans import Span, of_type
from minibroker.session.wishes import Wish


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as the server has it: a job, and when it is published.

    `next` and `last` are instants of its calendar, in UTC; None: there is none. `waits`: why its job is not
    published although it is due; empty: it is not, or nothing keeps it. `terms`: what its messages have of key,
    delay_ms, max_attempts, lease_ms, priority, ttl_ms, unique_key and unique_mode.
    """

    name: str
    queue: str
    cron: str
    zone: str
    misfire: str
    paused: bool
    next: datetime | None
    last: datetime | None
    waits: str
    terms: Mapping[str, int | str]
    _headers: bytes
    raw: bytes
    encoding: int

    @property
    def body(self) -> Any:
        """The body of its messages."""
        return decode_body(self.raw, self.encoding)

    @property
    def headers(self) -> dict[str, Any]:
        """The headers of its messages, but for those that say which schedule it is, and for when."""
        return decode_headers(self._headers)


def change(
    name: str,
    cron: str,
    queue: str,
    body: Any,
    *,
    zone: str,
    misfire: str,
    headers: Mapping[str, object] | None,
    key: str | None,
    delay: Span | None,
    max_attempts: int | None,
    lease: Span | None,
    priority: int,
    ttl: Span | None,
    unique_key: str | None,
    unique: str,
) -> Wish:
    """Return the wish for a schedule; TypeError, BadValue, TooLarge if it can be none."""
    for what, value in (("name", name), ("cron", cron), ("zone", zone), ("misfire", misfire)):
        of_type(what, value, str, "a str")
    if misfire not in MISFIRES:
        raise BadValue(f"misfire is {misfire!r:.100}; it must be one of {', '.join(MISFIRES)}")
    wishes.check_name(queue)
    ready = wishes.ready(body, headers, key, delay, limits.MAX_MESSAGE_BYTES, unique_key)
    content = pack_strings([ready.headers, ready.body])
    if len(content) > limits.MAX_SCHEDULE_BYTES:
        text = f"the job of a schedule has {len(content)} bytes, and {limits.MAX_SCHEDULE_BYTES} are allowed"
        raise TooLarge(f"{text}; store the data elsewhere and publish its place")
    own = wishes.place(
        queue, 0, 0, max_attempts, lease, priority, unique, ttl=ttl, names=(unique_key, None)
    )[2:]
    terms: dict[str, object] = {"key": ready.key.decode(), "delay_ms": ready.delay_ms}
    terms["unique_key"] = unique_key
    terms |= zip(TERMS, own, strict=False)
    fields: dict[str, object] = {
        "name": name,
        "queue": queue,
        "cron": cron,
        "zone": zone,
        "misfire": misfire,
        "encoding": ready.encoding,
        "terms": {term: value for term, value in terms.items() if value},
    }
    return "schedule_set", fields, content


def page(after: str) -> Wish:
    """Return the wish to see the schedules behind a name."""
    return "schedules", {"after": after}, b""


def one(name: str) -> Wish:
    """Return the wish to see one schedule."""
    return "schedules", {"name": _name(name)}, b""


def delete(name: str) -> Wish:
    """Return the wish to end a schedule."""
    return "schedule_delete", {"name": _name(name)}, b""


def pause(name: str, *, paused: bool) -> Wish:
    """Return the wish to let a schedule rest, or go on."""
    return "schedule_pause", {"name": _name(name), "paused": int(paused)}, b""


def run(name: str) -> Wish:
    """Return the wish to have a job published now."""
    return "schedule_run", {"name": _name(name)}, b""


def _name(name: str) -> str:
    of_type("name", name, str, "the name of a schedule, a str")
    if not name:
        raise BadValue("the name of a schedule is empty")
    return name


def read(value: Mapping[str, Any]) -> Schedule:
    """Return a schedule out of an answer."""
    return Schedule(
        value["name"],
        value["queue"],
        value["cron"],
        value["zone"],
        value["misfire"],
        bool(value["paused"]),
        _time(value["next_unix_ms"]),
        _time(value["last_unix_ms"]),
        value.get("waits", ""),
        dict(value["terms"]),
        value["headers"],
        value["body"],
        value["encoding"],
    )


def read_page(value: Mapping[str, Any]) -> list[Schedule]:
    """Return the schedules of a page."""
    return [read(each) for each in value["schedules"]]


def confirm(value: Mapping[str, Any]) -> Confirm:
    """Return the confirm of a job that was published now."""
    is_there = bool(value.get("duplicate"))
    return Confirm(value["origin"], value["first"], value["durability"], is_there)


def _time(unix_ms: int) -> datetime | None:
    return datetime.fromtimestamp(unix_ms / 1_000, UTC) if unix_ms else None
