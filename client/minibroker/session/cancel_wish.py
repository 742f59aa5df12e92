"""`cancel`: what an application says of the messages that are to end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from minibroker.contract import limits, wire
from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import BadValue
from minibroker.session.spans import of_type
from minibroker.session.wishes import Wish, runs_of

STATES: Final = ("", "READY", "DELAYED", "HELD", "BEGUN")


def cancel_wish(
    queue: str, ids: Iterable[MessageId] | None, key: str | None, state: str, client: str
) -> Wish | None:
    """Return the wish to cancel messages; None: none is named. TypeError, BadValue if it is about none, or all."""
    runs = runs_of(ids)
    for name, value in (("key", key or ""), ("state", state), ("client", client)):
        of_type(name, value, str, "a str")
    by_filter = bool(key or state or client)
    if by_filter == (ids is not None):
        raise TypeError(
            "cancel takes ids, or some of key, state and client; purge ends all messages"
        )
    if state.upper() not in STATES:
        raise BadValue(f"state is {state!r}; it must be one of {', '.join(STATES[1:])}")
    if ids is not None and not runs:
        return None
    if len((key or "").encode(errors="replace")) > limits.MAX_KEY_BYTES:
        raise BadValue(f"a key has at most {limits.MAX_KEY_BYTES} bytes")
    fields: dict[str, object] = {"queue": queue, "runs": len(runs)}
    fields |= {"key": key or "", "state": state.upper(), "client": client}
    return "cancel_messages", fields, wire.pack_runs(runs)
