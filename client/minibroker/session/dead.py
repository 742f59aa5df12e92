"""Dead messages: which ones (`Where`), what they died of (`ErrorGroup`), how they go back (`Redrive`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from minibroker.contract import limits, wire
from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import BadValue
from minibroker.session.spans import Span, milliseconds, of_type, whole
from minibroker.session.wishes import Wish, runs_of


@dataclass(frozen=True, slots=True)
class Where:
    """Which dead messages: those of which all holds that is given.

    `error_text` is a part of the text of the last error, all other texts are whole. `group` is that of an
    `ErrorGroup`, `origin` the name of the queue that a message was published to. `older` and `younger` are for how
    long it is dead: at least, and less than.
    """

    error_class: str = ""
    error_text: str = ""
    cause: str = ""  # failed, rejected, expired, worker_lost
    group: str = ""
    key: str = ""
    origin: str = ""
    older: Span = 0
    younger: Span = 0

    def fields(self) -> dict[str, object]:
        """Return it as the server gets it: what is given; TypeError, BadValue if there can be no such message."""
        fields: dict[str, object] = {}
        for name, most in _TEXTS.items():
            value = getattr(self, name)
            of_type(name, value, str, "a str")
            if len(value.encode(errors="replace")) > most:
                raise BadValue(f"{name} has at most {most} bytes")
            if value:
                fields[name] = value
        for name in ("older", "younger"):
            span_ms = milliseconds(name, getattr(self, name), 2**53)
            if span_ms:
                fields[f"{name}_ms"] = span_ms
        return fields


_TEXTS = {
    "error_class": limits.MAX_ERROR_CLASS_BYTES,
    "error_text": limits.MAX_ERROR_TEXT_BYTES,
    "cause": limits.MAX_CAUSE_CHARS,
    "group": limits.MAX_GROUP_CHARS,
    "key": limits.MAX_KEY_BYTES,
    "origin": limits.MAX_QUEUE_NAME_CHARS,
}


@dataclass(slots=True)
class ErrorGroup:
    """Messages that died of the same: of one cause and class, at one place in the code.

    Where the error names no place (its client is not one of ours), the first line of its text counts, in which all
    numbers are alike, as `#`. `group` is its name in `Where`, `example` one of them, `text` what one of them said.
    """

    group: str
    cause: str
    error_class: str
    place: str  # file:line in function; empty: not known
    text: str
    count: int
    first: datetime  # when the first and the last of them died, by the server's clock (UTC)
    last: datetime
    example: MessageId


@dataclass(frozen=True, slots=True)
class Redrive:
    """How a redrive stands that the server does by itself.

    `state`: `canary` (its first messages are being sent), `watching` (until each of these has ended), `sending`
    (the others), `done`, or `stopped`; `why` says why it was stopped, or what it waits for.
    """

    state: str
    why: str
    by: str  # name of the client that started it
    started: datetime  # by the server's clock (UTC)
    ended: datetime | None
    rate: int  # messages a second; 0: as fast as it goes
    canary: int
    redriven: int  # messages sent back so far

    @property
    def is_over(self) -> bool:
        """Whether it is done, or was stopped."""
        return self.ended is not None


class Groups:
    """Puts the pages of an answer together."""

    def __init__(self) -> None:
        self.after = b""  # where the next page begins; empty: that was all
        self._groups: dict[str, ErrorGroup] = {}

    def add(self, value: Mapping[str, Any]) -> bool:
        """Take one page; return whether there are more."""
        for row in value["groups"]:
            new = _read(row)
            known = self._groups.setdefault(new.group, new)
            if known is not new:
                known.count += new.count
                known.first, known.last = min(known.first, new.first), max(known.last, new.last)
        self.after = bytes(value.get("next", b""))
        return bool(self.after)

    def largest(self) -> list[ErrorGroup]:
        """Return all groups, the largest first."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.group))


def error_groups(queue: str, where: Where | None, after: bytes) -> Wish:
    """Return the wish for a page of groups."""
    fields: dict[str, object] = {"queue": queue, "after": after}
    return "error_groups", fields | filter_of(where), b""


def redrive(
    queue: str, ids: Iterable[MessageId] | None, count: int, where: Where | None
) -> Wish | None:
    """Return the wish to send dead messages back; None: it is of no ids, for which the server would take all."""
    runs = runs_of(ids)
    if ids is not None and where is not None:
        raise TypeError("redrive takes ids or a filter, not both")
    if ids is not None and not runs:
        return None
    fields: dict[str, object] = {"queue": queue, "runs": len(runs)}
    fields["count"] = whole("count", count, 0, 2**53)
    return "redrive", fields | filter_of(where), wire.pack_runs(runs)


def start_redrive(
    queue: str, ids: Iterable[MessageId] | None, where: Where | None, rate: int, canary: int
) -> Wish:
    """Return the wish to have dead messages sent back; BadValue, TypeError if there can be no such redrive."""
    runs = runs_of(ids)
    if ids is not None and where is not None:
        raise TypeError("a redrive is of ids or of a filter, not of both")
    if ids is not None and not 0 < len(runs) <= limits.MAX_REDRIVE_IDS:
        raise BadValue(f"a redrive of ids has 1 to {limits.MAX_REDRIVE_IDS} of them")
    fields: dict[str, object] = {
        "queue": queue,
        "runs": len(runs),
        "rate": whole("rate", rate, 0, limits.MAX_REDRIVE_RATE),
        "canary": whole("canary", canary, 0, limits.MAX_CANARY),
    }
    return "redrive_start", fields | filter_of(where), wire.pack_runs(runs)


def read_redrive(value: Mapping[str, Any]) -> Redrive:
    """Return how a redrive stands, as the server said it."""
    said = value["redrive"]
    return Redrive(
        str(said["state"]),
        str(said["why"]),
        str(said["by"]),
        _time(said["started_unix_ms"]),
        _time(said["ended_unix_ms"]) if said["ended_unix_ms"] else None,
        int(said["rate"]),
        int(said["canary"]),
        int(said["redriven"]),
    )


def filter_of(where: Where | None) -> dict[str, object]:
    """Return the fields of a filter, of none: no fields."""
    if where is None:
        return {}
    of_type("where", where, Where, "a minibroker.Where")
    return where.fields()


def _read(row: Mapping[str, Any]) -> ErrorGroup:
    return ErrorGroup(
        str(row["group"]),
        str(row["cause"]),
        str(row["error_class"]),
        str(row["place"]),
        str(row["text"]),
        int(row["count"]),
        _time(row["first_unix_ms"]),
        _time(row["last_unix_ms"]),
        MessageId(row["origin"], row["sequence"]),
    )


def _time(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms / 1_000, UTC)
