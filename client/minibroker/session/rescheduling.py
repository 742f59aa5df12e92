"""`reschedule`: a message that waits is ready at another time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import BadValue, NotWaiting
from minibroker.contract.wire import pack_runs
from minibroker.session.spans import Span, milliseconds, of_type, shown
from minibroker.session.wishes import Wish, runs_of

WHERE: Final = {
    "held": "a worker has it",
    "begun": "a worker works on it",
    "dead": "it is dead, and waits for room in its dead-letter queue",
    "disk_full": "the disk is full",
    "missing": "it is not there",
}


def reschedule(queue: str, id: MessageId, delay: Span | None, at: datetime | None) -> Wish:
    """Return the wish to have a message ready after `delay`, or at `at`; TypeError, BadValue if it is neither."""
    if (delay is None) == (at is None):
        raise TypeError("a message is ready after a delay, or at a time: give one of delay and at")
    fields: dict[str, object] = {"queue": queue, "runs": 1}
    if delay is not None:
        fields["delay_ms"] = milliseconds("delay", delay, limits.MAX_DELAY_MS)
    else:
        fields["at_unix_ms"] = unix_ms_of("at", at)
    return "retime", fields, pack_runs(runs_of([id]))


def check(queue: str, id: MessageId, value: Mapping[str, Any]) -> None:
    """Raise NotWaiting if the answer says that the message was left as it is."""
    for why in value.get("left", ()):
        where = WHERE.get(why, f"it is {why}")
        text = f"message {MessageId(*id)} of {queue} does not wait: {where}; nothing was changed"
        raise NotWaiting(text)


def unix_ms_of(name: str, at: object) -> int:
    """Return the argument `name`, a time, in ms; TypeError, BadValue if it is none, or one of no zone."""
    of_type(name, at, datetime, "a datetime")
    assert isinstance(at, datetime)
    if at.tzinfo is None:
        raise TypeError(f"{name} is {shown(at)}, a time of no zone; datetime.now(UTC) has one")
    unix_ms = round(at.timestamp() * 1_000)
    if unix_ms > 2**53:
        raise BadValue(f"{name} is {shown(at)}, later than any time")
    return max(unix_ms, 1)
