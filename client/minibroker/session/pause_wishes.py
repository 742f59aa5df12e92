"""Pauses as an application asks for them, and as the server shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from minibroker.contract import limits
from minibroker.contract.errors import BadValue
from minibroker.contract.versions import APP_VERSION
from minibroker.session.rescheduling import unix_ms_of
from minibroker.session.spans import Span, milliseconds, of_type, shown
from minibroker.session.wishes import Wish


@dataclass(frozen=True, slots=True)
class Pause:
    """A queue, or workers, that rest.

    `queue`; or `worker`, the name of clients (empty: all), and `below`, of which version those are lower (empty:
    all). `until`: when they go on by themselves; None: when they are resumed. `held` and `begun` are what workers
    still have of a queue; `in_hand` what paused workers still have, which goes back at the `deadline`, if there is
    one, and `clients` how many these are.
    """

    queue: str
    worker: str
    below: str
    since: datetime
    until: datetime | None
    by: str
    held: int = 0
    begun: int = 0
    in_hand: int = 0
    clients: int = 0
    deadline: datetime | None = None


def pause_queue(queue: str, for_: Span | None, until: datetime | None) -> Wish:
    """Return the wish to pause a queue; TypeError, BadValue if both ends are given, or one is none."""
    return "pause", {"queue": queue, **_end(for_, until)}, b""


def pause_workers(
    name: str, below: str, for_: Span | None, until: datetime | None, deadline: Span | None
) -> Wish:
    """Return the wish to pause workers; TypeError, BadValue if it says which in no way."""
    of_type("below", below, str, "a version, a str")
    if below and not APP_VERSION.fullmatch(below):
        raise BadValue(f"below is {shown(below)}; it must be numbers with dots, like 1.4.2")
    fields = _name(name) | {"below": below} | _end(for_, until)
    if not (name or below):
        raise BadValue("say which workers: their name, or the version below which they rest")
    if deadline is not None:
        fields["deadline_ms"] = milliseconds("deadline", deadline, limits.MAX_DELAY_MS, 1)
    return "pause", fields, b""


def resume_queue(queue: str) -> Wish:
    """Return the wish to let a queue go on."""
    return "unpause", {"queue": queue}, b""


def resume_workers(name: str) -> Wish:
    """Return the wish to let workers go on."""
    return "unpause", _name(name), b""


def all_pauses() -> Wish:
    """Return the wish to see what is paused."""
    return "pauses", {}, b""


def _name(name: str) -> dict[str, object]:
    of_type("name", name, str, "the name of a client, a str")
    return {"client": name}


def _end(for_: Span | None, until: datetime | None) -> dict[str, object]:
    if for_ is not None and until is not None:
        raise TypeError("a pause ends after a time, or at one: give one of for_ and until")
    if for_ is not None:
        return {"for_ms": milliseconds("for_", for_, limits.MAX_DELAY_MS, 1)}
    return {} if until is None else {"until_unix_ms": unix_ms_of("until", until)}


def read(value: Mapping[str, Any]) -> Pause:
    """Return a pause out of an answer."""
    return Pause(
        value.get("queue", ""),
        value.get("client", ""),
        value.get("below", ""),
        datetime.fromtimestamp(value["since_unix_ms"] / 1_000, UTC),
        _time(value["until_unix_ms"]),
        value["by"],
        value.get("held", 0),
        value.get("begun", 0),
        value.get("in_hand", 0),
        value.get("clients", 0),
        _time(value.get("deadline_unix_ms", 0)),
    )


def _time(unix_ms: int) -> datetime | None:
    return datetime.fromtimestamp(unix_ms / 1_000, UTC) if unix_ms else None


def read_all(value: Mapping[str, Any]) -> list[Pause]:
    """Return the pauses of an answer."""
    return [read(each) for each in value["pauses"]]
