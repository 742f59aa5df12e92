"""Results that have names: where a library asks for what a task came to by an id of its own.

Each is a message of a queue that nobody consumes: the name is its unique key, and a new one replaces it. Who waits
for one that is not there puts a placeholder under the name, and waits for the end of that: the broker tells him
when it was replaced. So nothing is polled, and the time to live of a message is that of a result. Who only looks
leaves nothing behind.
"""

from __future__ import annotations

from datetime import timedelta
from time import monotonic
from typing import Any, Final

import minibroker.sync
from minibroker.contract.confirms import Confirm
from minibroker.contract.errors import (
    MessageFailed,
    Timeout,
    TooLarge,
    UnknownMessage,
    UnknownQueue,
)
from minibroker.session.peek import Peeks
from minibroker.session.spans import Span

PLACEHOLDER: Final = b""
PLACE_KEPT: Final = timedelta(hours=1)
GONE: Final = (MessageFailed, UnknownMessage)  # what stood there: look again


def too_large(error: TooLarge) -> TooLarge:
    """Return what is kept in the place of a result that the broker refused with `error`."""
    return TooLarge(f"the result is too large, keep it elsewhere and return its name: {error}")


class NamedResults:
    """Results in a queue of a blocking client."""

    def __init__(self, broker: minibroker.sync.Broker, queue_name: str) -> None:
        # A result lies before the ack of its task in the log: it is as safe as that, and costs no sync.
        self._queue: minibroker.sync.Queue[Any] = broker.queue(queue_name, durability="lazy")

    def put(self, name: str, value: bytes, kept: Span, timeout: Span | None = None) -> None:
        """Keep a value, which is not empty, under a name, in the place of what is there."""
        queue = self._queue
        queue.publish(value, unique_key=name, unique="replace", ttl=kept, timeout=timeout)

    def get(self, name: str) -> bytes | None:
        """Return what is kept under a name; None: nothing is."""
        try:
            return value_of(self._queue.peek(1, unique_key=name))
        except UnknownQueue:  # nothing has ever been kept
            return None

    def wait(self, name: str, within_s: float) -> bytes | None:
        """Return what is kept under a name, at once or when it is; None: nothing came in time."""
        until = monotonic() + within_s
        while True:
            confirm = self._stand(name)
            found = self._queue.peek(1, ids=[confirm.id]) if confirm.duplicate else None
            if found and (value := value_of(found)) is not None:
                return value
            try:
                self._queue.result(confirm.id, timeout=max(0.0, until - monotonic()))
            except GONE:
                continue
            except Timeout:
                return None

    def _stand(self, name: str) -> Confirm:
        return self._queue.publish(PLACEHOLDER, unique_key=name, ttl=PLACE_KEPT)


class NamedResultsInLoop:
    """Results in a queue of asyncio's client."""

    def __init__(self, broker: minibroker.Broker, queue_name: str) -> None:
        self._queue: minibroker.Queue[Any] = broker.queue(queue_name, durability="lazy")

    async def put(self, name: str, value: bytes, kept: Span, timeout: Span | None = None) -> None:
        """Keep a value, which is not empty, under a name, in the place of what is there."""
        queue = self._queue
        await queue.publish(value, unique_key=name, unique="replace", ttl=kept, timeout=timeout)

    async def get(self, name: str, *, forget: bool = False) -> bytes | None:
        """Return what is kept under a name, which it is no longer with `forget`; None: nothing is."""
        try:
            found = await self._queue.peek(1, unique_key=name)
        except UnknownQueue:  # nothing has ever been kept
            return None
        value = value_of(found)
        if value is not None and forget:
            await self._queue.purge([found[0].id])
        return value


def value_of(found: Peeks) -> bytes | None:
    """Return the value that stands in the message found; None: there is none, or it is a placeholder."""
    return (found[0].raw or None) if found else None
