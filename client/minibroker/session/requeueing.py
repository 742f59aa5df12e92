"""`requeue`: a message is published again, as it is or changed; the original stays where it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import BadValue
from minibroker.contract.limits import DLQ_SUFFIX
from minibroker.session.peek import Peeked

# Header of what was published again: the id of the original.
ORIGINAL: Final = "minibroker-original"
SAME: Final = object()  # the body of the original


class Requeued(NamedTuple):
    """What is published: arguments of `publish`."""

    body: Any
    headers: dict[str, Any]
    key: str | None
    priority: int


def requeued(
    queue: str,
    id: MessageId,
    found: list[Peeked],
    body: Any,
    headers: Mapping[str, object] | None,
    key: str | None,
) -> Requeued:
    """Return what is published again of the message that was looked for; what is None is as in the original.

    Raises:
        BadValue: it is not there.
        BodyError: what is kept of it cannot be read.
    """
    if not found:
        raise BadValue(f"{queue} has no message {MessageId(*id)} that could be published again")
    (original,) = found
    own = original.headers if headers is None else dict(headers)
    return Requeued(
        original.body if body is SAME else body,
        own | {ORIGINAL: str(original.id)},
        (original.info.get("key", "") if key is None else key) or None,
        original.info.get("priority", 0),
    )


def source_of(queue: str) -> str:
    """Return the queue whose dead-letter queue this is, else itself."""
    return queue.removesuffix(DLQ_SUFFIX)
