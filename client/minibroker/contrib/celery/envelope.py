"""A message of kombu as one of ours, and back: pure, but for the wall clock that comes in.

kombu's message is a dict of body, content type, headers and properties. Here the body is the body, as bytes,
and the headers are the headers, so `minibroker peek`, the page and a dead-letter queue show the task, its id
and arguments. All else of kombu stands in one header more. What Celery asks of a broker in its own words
becomes terms of the publish:

    eta (from countdown, too)     delay=, held by the broker. The header is renamed, so no worker waits once more
    expires                       ttl=, read from the header as a worker reads it; an hour more with a result
    expiration of kombu           ttl=, where no such header says it
    priority                      priority=, as it is: 9 goes first, 0 is what has none; turned round by an option
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from kombu.utils import json as kombu_json

logger = logging.getLogger("minibroker.contrib.celery")

REST: Final = "kombu"  # the header with all that is neither body nor header
# Headers that only kombu's JSON can write: with dates, UUIDs and the like.
AS_JSON: Final = "kombu-headers"
ETA: Final = "minibroker-eta"  # the eta of a task for which the broker has waited
DELIVERY_COUNT: Final = "x-delivery-count"  # as RabbitMQ has it: deliveries before this one
HIGHEST: Final = 9
# What AMQP has, and so every consumer may look for; tags and encodings are of a connection.
KEPT: Final = frozenset(
    [
        "app_id",
        "correlation_id",
        "delivery_mode",
        "expiration",
        "message_id",
        "priority",
        "reply_to",
        "timestamp",
        "type",
        "user_id",
    ]
)
# So long after its time a task waits for a worker that stores that it was revoked.
TOLD_S: Final = 3_600.0


class Terms:
    """What one publish asks of the broker."""

    __slots__ = ("delay_s", "priority", "ttl_s")

    def __init__(self, priority: int, delay_s: float, ttl_s: float | None) -> None:
        self.priority = priority
        self.delay_s = delay_s
        self.ttl_s = ttl_s

    def options(self) -> dict[str, Any]:
        """Return them as arguments of `publish`; what is as ever is left out."""
        options: dict[str, Any] = {}
        if self.priority:
            options["priority"] = self.priority
        if self.delay_s > 0:
            options["delay"] = self.delay_s
        if self.ttl_s is not None:
            options["ttl"] = self.ttl_s
        return options


def pack(
    message: Mapping[str, Any], exchange: str, routing_key: str, now: datetime, lowest_first: bool
) -> tuple[bytes, dict[str, Any], Terms]:
    """Return body, headers and terms of a message of kombu; `now` with a zone.

    The headers are as kombu has them: those that a publish refuses (TypeError) are said by `as_json`.
    """
    body = message["body"]
    raw = body.encode() if isinstance(body, str) else bytes(body or b"")
    headers = dict(message["headers"])
    properties = {name: value for name, value in message["properties"].items() if name in KEPT}
    properties["delivery_info"] = {"exchange": exchange, "routing_key": routing_key}
    priority = _priority(properties.get("priority"), lowest_first)
    terms = Terms(priority, _delay_s(headers, now), _ttl_s(headers, properties, now))
    headers[REST] = [message.get("content-type"), message.get("content-encoding"), properties]
    return raw, headers, terms


def as_json(headers: dict[str, Any]) -> dict[str, str]:
    """Return headers out of `pack` as text: with dates, UUIDs and the like in them.

    Raises:
        TypeError: one of them is nothing that JSON of kombu can say.
    """
    own = dict(headers)
    rest = own.pop(REST)
    return {AS_JSON: kombu_json.dumps([own, rest])}


def unpack(raw: bytes, headers: Mapping[str, Any], attempt: int, tag: str) -> dict[str, Any]:
    """Return the message of kombu that `pack` was given, as it is at its `attempt`-th delivery.

    One that nobody packed, as from the command line, is JSON if it is anything; its headers may be any.
    """
    own, (content_type, content_encoding, properties) = _packed(headers) or (
        {name: value for name, value in headers.items() if name not in (REST, AS_JSON)},
        ("application/json", "utf-8", {}),
    )
    properties["delivery_tag"] = tag
    properties.setdefault("delivery_info", {})
    if attempt > 1:
        own["redelivered"] = properties["delivery_info"]["redelivered"] = True
        own[DELIVERY_COUNT] = attempt - 1
    return {
        "body": raw,
        "content-type": content_type,
        "content-encoding": content_encoding,
        "headers": own,
        "properties": properties,
    }


def _packed(headers: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Any, Any, Any]] | None:
    """Return headers and the rest as `pack` was given them; None: it did not write this."""
    try:
        if AS_JSON in headers:
            own, rest = kombu_json.loads(headers[AS_JSON])
        else:
            own = dict(headers)
            rest = own.pop(REST, None)
        content_type, content_encoding, properties = rest
    except (AttributeError, KeyError, TypeError, ValueError):  # all that kombu's decoders raise
        return None
    delivered = properties.get("delivery_info", {}) if isinstance(properties, dict) else None
    are_names = all(isinstance(name, str | None) for name in (content_type, content_encoding))
    if not (isinstance(own, dict) and isinstance(delivered, dict) and are_names):
        return None
    return own, (content_type, content_encoding, properties)


def is_transient(message: Mapping[str, Any]) -> bool:
    """Whether the publisher does not mind its loss: events, control and its replies."""
    return message["properties"].get("delivery_mode") in (1, "transient")


def _priority(asked: Any, lowest_first: bool) -> int:
    try:
        priority = max(0, min(HIGHEST, int(asked or 0)))
    except (TypeError, ValueError):
        priority = 0
    return HIGHEST - priority if lowest_first else priority


def _delay_s(headers: dict[str, Any], now: datetime) -> float:
    """Return how long the broker is to wait; then the eta moves to a header of ours, in place."""
    text = headers.get("eta")
    if not isinstance(text, str):
        return 0.0
    eta = _instant(text, "eta")
    if eta is None:
        return 0.0  # the worker says what is wrong with it
    headers["eta"] = None
    headers[ETA] = text
    return (eta - now).total_seconds()


def _ttl_s(
    headers: Mapping[str, Any], properties: Mapping[str, Any], now: datetime
) -> float | None:
    """Return the time to live; None: none, or it is over.

    Who waits for the result of a task that has expired hears of it from a worker, which does not run it. So a
    task with a result outlives its time.
    """
    text = headers.get("expires")
    if isinstance(text, str):
        expires = _instant(text, "expires")
        left_s = None if expires is None else (expires - now).total_seconds()
        if left_s is not None and not headers.get("ignore_result"):
            left_s = max(left_s, 0) + TOLD_S
    else:
        try:
            left_s = int(properties.get("expiration") or 0) / 1_000
        except (TypeError, ValueError):
            left_s = None
    return left_s if left_s is not None and left_s >= 0.001 else None


def _instant(text: str, what: str) -> datetime | None:
    """Return the instant that ISO 8601 says, read as a worker of Celery reads it; None if it says none."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    if instant.tzinfo is None:
        logger.warning(
            "%s %s has no time zone: Celery reads it as UTC, whatever the zone of the application is",
            what,
            text,
        )
        instant = instant.replace(tzinfo=UTC)
    return instant


def text_of(value: Any) -> bytes:
    """Return a body that nobody packed as JSON."""
    return json.dumps(value).encode()
