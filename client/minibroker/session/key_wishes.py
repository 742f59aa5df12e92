"""What may be set for one key of a queue: a weight, and a pause; and its circuit, where it failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.errors import BadValue
from minibroker.session.spans import Span, milliseconds, of_type
from minibroker.session.wishes import Wish

FOR_EVER_MS: Final = 2**62  # until when a key is paused that waits for a word


@dataclass(frozen=True, slots=True)
class KeyCircuit:
    """The circuit of a key that is `open`, or `probing` (one message is tried), since when and why.

    `until` is when a message is tried; None: one is, or may be.
    """

    state: str
    why: str
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeySetting:
    """What is set for a key: `weight` messages come in its turn; `paused` since `since`, by whom.

    `until` is None where the pause ends with a resume only. `circuit` is None while that of the key is closed.
    """

    key: str
    weight: int = 1
    paused: bool = False
    until: datetime | None = None
    since: datetime | None = None
    by: str = ""
    circuit: KeyCircuit | None = None


def weight(queue: str, key: str, weight: int) -> Wish:
    """Return the wish to give a key a weight; TypeError, BadValue if it is none."""
    of_type("weight", weight, int, "an int")
    if not 1 <= weight <= limits.MAX_KEY_WEIGHT:
        raise BadValue(f"weight is {weight}; it must be from 1 to {limits.MAX_KEY_WEIGHT}")
    return "key_set", {"queue": queue, "key": checked_key(key), "weight": weight}, b""


def pause(queue: str, key: str, for_: Span | None) -> Wish:
    """Return the wish to have nothing of a key handed out for so long; None: until it is resumed."""
    most = limits.MAX_DELAY_MS
    pause_ms = most if for_ is None else milliseconds("for_", for_, most)
    return "key_set", {"queue": queue, "key": checked_key(key), "pause_ms": pause_ms}, b""


def resume(queue: str, key: str) -> Wish:
    """Return the wish to let a key go on."""
    return "key_set", {"queue": queue, "key": checked_key(key), "pause_ms": 0}, b""


def read(value: Mapping[str, Any]) -> KeySetting:
    """Return what the server says is set for a key."""
    until, since = value["paused_until_unix_ms"], value["since_unix_ms"]
    return KeySetting(
        str(value["key"]),
        int(value["weight"]),
        bool(until),
        _time(until) if 0 < until < FOR_EVER_MS else None,
        _time(since) if since and until else None,
        str(value["by"]) if until else "",
        _circuit(value.get("circuit")),
    )


def _circuit(value: Mapping[str, Any] | None) -> KeyCircuit | None:
    if value is None:
        return None
    until = value["until_unix_ms"]
    return KeyCircuit(
        str(value["state"]),
        str(value["why"]),
        _time(value["since_unix_ms"]),
        _time(until) if until else None,
    )


def checked_key(key: object) -> str:
    """Return a key that something is asked for; TypeError, BadValue if it is none."""
    of_type("key", key, str, "a str")
    assert isinstance(key, str)
    if not key:
        raise BadValue("the key is empty: messages without a key have no settings")
    return key


def _time(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms / 1_000, UTC)
