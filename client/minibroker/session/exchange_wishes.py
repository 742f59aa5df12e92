"""Exchanges as an application asks for them and publishes to them, and as the server shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from minibroker.contract import limits, wire
from minibroker.contract.errors import BadName, BadValue
from minibroker.contract.exchange_commands import EXCHANGE_TYPES, UNROUTABLE
from minibroker.session.outbox import Key
from minibroker.session.route_groups import MARK
from minibroker.session.spans import Span, of_type, shown
from minibroker.session.wishes import Wish, place, utf8
from minibroker.session.wishes import check_name as check_queue

Match = Mapping[str, str | int]
Matched = tuple[tuple[str, str | int], ...]
# Time-out, attempts, lease, priority, time to live.
RouteTerms = tuple[Span | None, int | None, Span | None, int, Span | None]
MAX_MATCH_BYTES: Final = limits.MAX_HEADER_BYTES // 2  # the rest of a header is for all else


def check_name(name: str) -> str:
    """Return the name of an exchange; TypeError, BadName if it can be none."""
    of_type("name", name, str, "the name of an exchange, a str")
    size = len(utf8(name, BadName))
    if not 0 < size <= limits.MAX_QUEUE_NAME_CHARS:
        raise BadName(
            f"an exchange name of {size} bytes; it must have 1 to {limits.MAX_QUEUE_NAME_CHARS}"
        )
    return name


def text(what: str, value: str) -> str:
    """Return a routing key or a pattern; TypeError, BadValue if it can be none."""
    of_type(what, value, str, "a str")
    if (
        len(value) * 4 <= limits.MAX_PATTERN_BYTES and value.isascii()
    ):  # as nearly all: nothing is encoded
        return value
    size = len(utf8(value, BadValue))
    if size > limits.MAX_PATTERN_BYTES:
        raise BadValue(f"{what} has {size} bytes, and {limits.MAX_PATTERN_BYTES} are allowed")
    return value


def matched(headers: Mapping[str, object] | None, match: Match | None) -> Matched:
    """Return what an exchange of type headers looks at: `match`, or those of `headers` that are str or int.

    A pattern is shorter than `MAX_PATTERN_BYTES`, so a longer text is equal to none, and cut.

    Raises:
        TypeError: `match` is no dict of str to str or int.
        BadValue: it has too many entries, or is too large.
    """
    if not (headers or match):
        return ()
    if match is None:
        assert headers is not None
        found: list[tuple[Any, Any]] = [each for each in headers.items() if _can_match(*each)]
    else:
        of_type("match", match, Mapping, "a dict of str to str or int")
        found = list(match.items())
        for name, value in found:
            if not _can_match(name, value):
                raise TypeError(
                    f"match has {shown(value)} under {shown(name)}; it must be str or int, under a str"
                )
    if len(found) > limits.MAX_MATCHED_HEADERS:
        raise BadValue(
            f"{len(found)} headers for bindings to look at, and {limits.MAX_MATCHED_HEADERS} are allowed; "
            "say which in match"
        )
    pairs: Matched = tuple((name, _cut(value)) for name, value in found)
    try:
        size = len(wire.pack_header(dict(pairs)))
    except (OverflowError, ValueError) as error:  # 65 bits, or a lone surrogate
        raise BadValue(f"match: {error}") from error
    if size > MAX_MATCH_BYTES:
        raise BadValue(
            f"the headers for bindings to look at have {size} bytes, and {MAX_MATCH_BYTES} are allowed; "
            "say which in match"
        )
    return pairs


def _cut(value: Any) -> str | int:
    return value[: limits.MAX_PATTERN_BYTES] if isinstance(value, str) else int(value)


def _can_match(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, str | int) and not isinstance(value, bool)


def route_place(
    exchange: str, routing_key: str, match: Matched, default_ms: int, terms: RouteTerms
) -> Key:
    """Return what publishes share that leave in one frame; TypeError, BadValue if they cannot have it."""
    timeout, max_attempts, lease, priority, ttl = terms
    where = place(exchange, timeout, default_ms, max_attempts, lease, priority, ttl=ttl)
    return MARK + exchange, where[1], exchange, text("routing_key", routing_key), match, where[2:]


# ---- exchanges and bindings ----


@dataclass(frozen=True, slots=True)
class ExchangeInfo:
    """An exchange as the server has it.

    `unroutable` is what becomes of a message that no binding takes, where `alternate` (empty: none) does not take
    it either. `bindings` is their number; `routed`, `unroutable_count` and `refused_count` are messages since the
    server started: those that found a queue, and, of those that did not, what was dropped and what was refused.
    """

    name: str
    type: str
    unroutable: str
    alternate: str
    bindings: int
    routed: int
    unroutable_count: int
    refused_count: int


@dataclass(frozen=True, slots=True)
class Binding:
    """A way from an exchange to a `queue`, or to another exchange, its `target`; the other one is empty."""

    queue: str
    target: str
    pattern: str


def declare(name: str, type: str, unroutable: str | None, alternate: str | None) -> Wish:
    """Return the wish for an exchange, None: as it is; TypeError, BadName, BadValue if it can be none."""
    fields: dict[str, object] = {"name": name, "type": _one_of("type", type, EXCHANGE_TYPES)}
    if unroutable is not None:
        fields["unroutable"] = _one_of("unroutable", unroutable, UNROUTABLE)
    if alternate is not None:
        of_type("alternate", alternate, str, "the name of an exchange, a str")
        fields["alternate"] = check_name(alternate) if alternate else ""
    return "exchange_set", fields, b""


def _one_of(what: str, value: str, known: tuple[str, ...]) -> str:
    of_type(what, value, str, "a str")
    if value not in known:
        raise BadValue(f"{what} is {shown(value)}; it must be one of {', '.join(known)}")
    return value


def page(after: str) -> Wish:
    """Return the wish to see the exchanges behind a name."""
    return "exchanges", {"after": after}, b""


def one(name: str) -> Wish:
    """Return the wish to see one exchange."""
    return "exchanges", {"name": name}, b""


def delete(name: str) -> Wish:
    """Return the wish to end an exchange."""
    return "exchange_delete", {"name": name}, b""


def bind(op: str, exchange: str, to: Any, pattern: str, driver: Any) -> Wish:
    """Return the wish to bind or unbind an exchange; `to` is the name of a queue, a queue, or an exchange.

    Raises:
        TypeError, BadName, BadValue: it can be no binding.
        ValueError: `to` is of another connection than `driver`.
    """
    fields: dict[str, object] = {"exchange": exchange, "pattern": text("pattern", pattern)}
    if isinstance(to, str):
        return op, fields | {"queue": check_queue(to)}, b""
    if getattr(to, "_driver", None) is None:
        raise TypeError(f"{shown(to)} is no name of a queue, no queue, and no exchange")
    if to._driver is not driver:
        raise ValueError(f"{to!r} is of another connection than this exchange")
    return op, fields | {to._bound_as: to.name}, b""


def bindings_page(exchange: str, after: bytes) -> Wish:
    """Return the wish to see bindings behind those of a page."""
    return "bindings", {"exchange": exchange, "after": after}, b""


def read(value: Mapping[str, Any]) -> ExchangeInfo:
    """Return an exchange out of an answer."""
    return ExchangeInfo(*(value[name] for name in ExchangeInfo.__slots__))


def read_page(value: Mapping[str, Any]) -> list[ExchangeInfo]:
    """Return the exchanges of a page."""
    return [read(each) for each in value["exchanges"]]


def read_bindings(value: Mapping[str, Any]) -> list[Binding]:
    """Return the bindings of a page."""
    return [Binding(each["queue"], each["target"], each["pattern"]) for each in value["bindings"]]
