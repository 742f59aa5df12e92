"""The end of a bridge that is minibroker: a queue to take from or to put to, by the client of applications."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Any, Final

import minibroker
from minibroker.contract import limits, wire
from minibroker.contract.bodies import Encoded
from minibroker.contract.errors import (
    BadValue,
    BodyError,
    Busy,
    DiskFull,
    LeaseLost,
    MinibrokerError,
    NotSent,
    OutcomeUnknown,
    QueueFull,
    ShuttingDown,
    Timeout,
    TooLarge,
    UnknownExchange,
    UnknownQueue,
    Unroutable,
)
from minibrokerd.bridges.seam import (
    MSGPACK,
    Away,
    Later,
    Outcome,
    Parcel,
    Refused,
    Sink,
    Source,
    Stored,
    Unfit,
)

# Headers of messages that came over a bridge: what their source calls them, when it took them, and what they are.
ID: Final = "bridge-id"
UNIX_MS: Final = "bridge-unix-ms"
CONTENT_TYPE: Final = "content-type"

# Headers that say how a message was routed where it came from.
ROUTING_KEYS: Final = ("amqp-routing-key", "nats-subject")

# Renewed while the process lives; when it dies, its two batches come back after so long.
LEASE_S: Final = 10.0
NEVER: Final = (TypeError, BadValue, TooLarge)
PASSES: Final = (
    Busy,
    DiskFull,
    NotSent,
    OutcomeUnknown,
    QueueFull,
    ShuttingDown,
    Timeout,
    ConnectionError,
)


class QueueSource(Source):
    """Takes from a queue; what is delayed stays until it is due."""

    def __init__(self, broker: minibroker.Broker, queue: str, *, terms: bool = False) -> None:
        self.name = f"queue {queue}"
        self._queue: minibroker.Queue[Any] = broker.queue(queue)
        self._terms = terms

    async def open(self) -> None:
        """Do nothing: the client connects by itself."""

    async def take(self, most: int, wait_s: float) -> list[Parcel]:
        """Return messages as parcels; seam.Source."""
        try:
            messages = await self._queue.receive(most, wait_s, LEASE_S)
        except PASSES as error:
            raise Away(str(error)) from error
        parcels = [_parcel_of(each) for each in messages]
        if parcels and self._terms:
            try:
                await self._read_terms(parcels)
            except PASSES as error:
                await self.give_back(parcels)
                raise Away(str(error)) from error
        return parcels

    async def _read_terms(self, parcels: Sequence[Parcel]) -> None:
        """Fill in what a delivery does not say: priority, and when the time to live is over."""
        wanted = {each.handle.id: each for each in parcels}
        after = b""
        while True:
            page = await self._queue.peek(len(wanted), ids=wanted, after=after)
            for seen in page:
                parcel = wanted[seen.id]
                parcel.priority = int(seen.info.get("priority") or 0)
                ends = int(seen.info.get("expires_unix_ms") or 0)
                if ends:
                    parcel.ttl_ms = max(1, ends - _unix_ms())
            after = page.next
            if not after:
                return

    async def is_empty(self) -> bool:
        """Return whether nobody has a message that may come back; what is delayed is not waited for."""
        try:
            counters = (await self._queue.stats())["queues"].get(self._queue.name, {})
        except UnknownQueue:
            return True
        except PASSES as error:
            raise Away(str(error)) from error
        behind = counters.get("group_of", {}).get("lag", 0)  # of a group of a retained log
        return not behind and not any(counters.get(name) for name in ("ready", "held", "begun"))

    async def done(self, parcels: Sequence[Parcel]) -> int:
        """Ack them; one whose lease was lost comes again, to whoever takes it."""
        lost = 0
        for parcel in parcels:
            try:
                await parcel.handle.ack()
            except LeaseLost:
                lost += 1
            except PASSES as error:
                raise Away(str(error)) from error
        return lost

    async def give_back(self, parcels: Sequence[Parcel]) -> None:
        """Release them: to their places, no attempt charged."""
        for parcel in parcels:
            try:
                await parcel.handle.release()
            except MinibrokerError:
                continue  # it goes back when its lease ends

    async def reject(self, parcel: Parcel, reason: str) -> bool:
        """Move one to the dead-letter queue, with the reason in its history."""
        try:
            await parcel.handle.reject(reason, confirmed=True)
        except LeaseLost:
            return True  # it comes again, and meets the same
        except PASSES as error:
            raise Away(str(error)) from error
        return True

    async def close(self) -> None:
        """Do nothing: whoever made the connection ends it."""


class QueueSink(Sink):
    """Puts to a queue; `window_s`: for so long it knows the ids of messages (None: as the queue says)."""

    def __init__(
        self, broker: minibroker.Broker, queue: str, window_s: float | None = None
    ) -> None:
        self.name = f"queue {queue}"
        self.reused = 0  # messages that had the id of another one, and were stored all the same
        self._queue: minibroker.Queue[Any] = broker.queue(queue)
        self._window_s = window_s

    async def open(self) -> None:
        """Do nothing: the client connects by itself."""

    async def put(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """Publish them; seam.Sink. What follows a message that was not stored is not even tried."""
        order = sorted(range(len(parcels)), key=lambda at: parcels[at].priority)
        return await _put(self._publish, parcels, _runs(parcels, order))

    async def _publish(self, parcel: Parcel) -> Outcome:
        try:
            confirm = await self._queue.publish(**_publish_of(parcel, self._window_s))
            if not confirm.duplicate:
                return Stored.UNSURE if parcel.repeats and not parcel.id else Stored.NEW
            if parcel.repeats:
                return Stored.KNOWN
            # Its source has never handed it out before, so it is another message with the same id.
            self.reused += 1
            parcel.repeats = True
            parcel.id = ""
            confirm = await self._queue.publish(**_publish_of(parcel, self._window_s))
        except NEVER as error:
            return Unfit(str(error))
        except PASSES as error:
            return Later(str(error))
        return Stored.NEW

    async def close(self) -> None:
        """Do nothing: whoever made the connection ends it."""


class ExchangeSink(Sink):
    """Puts to an exchange, each message under a routing key: this one, else that which it came with.

    Exchanges know no ids: what comes twice is stored twice.
    """

    def __init__(self, broker: minibroker.Broker, exchange: str, routing_key: str | None) -> None:
        self.name = f"exchange {exchange}"
        self._exchange = broker.exchange(exchange)
        self._routing_key = routing_key

    async def open(self) -> None:
        """Make sure that it is there."""
        try:
            await self._exchange.show()
        except UnknownExchange as error:
            raise Refused(f"there is no exchange {self._exchange.name}") from error
        except PASSES as error:
            raise Away(str(error)) from error

    async def put(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """Publish them; seam.Sink. What follows a message that was not stored is not even tried."""
        runs = _runs(parcels, range(len(parcels)), self._key_of)
        return await _put(self._publish, parcels, runs)

    def _key_of(self, parcel: Parcel) -> str:
        if self._routing_key is not None:
            return self._routing_key
        came = (parcel.headers.get(name) for name in ROUTING_KEYS)
        return next((key for key in came if isinstance(key, str)), "")

    async def _publish(self, parcel: Parcel) -> Outcome:
        fields = _publish_of(parcel, None)
        del fields["dedupe_id"], fields["dedupe_window"]
        try:
            await self._exchange.publish(routing_key=self._key_of(parcel), **fields)
        except (*NEVER, Unroutable) as error:
            return Unfit(str(error))
        except (*PASSES, UnknownExchange) as error:
            return Later(str(error))
        return Stored.UNSURE if parcel.repeats else Stored.NEW

    async def close(self) -> None:
        """Do nothing: whoever made the connection ends it."""


async def _put(
    publish: Callable[[Parcel], Awaitable[Outcome]],
    parcels: Sequence[Parcel],
    runs: Iterable[list[int]],
) -> list[Outcome]:
    """Publish run by run, up to one of which something is to come later; return what became of each parcel."""
    result: list[Outcome] = [Later("what stood before it was not stored")] * len(parcels)
    for run in runs:
        outcomes = await asyncio.gather(*(publish(parcels[at]) for at in run))
        for at, said in zip(run, outcomes, strict=True):
            result[at] = said
        if any(isinstance(said, Later) for said in outcomes):
            break
    return result


def _runs(
    parcels: Sequence[Parcel], order: Sequence[int], key_of: Callable[[Parcel], str] = lambda _: ""
) -> Iterator[list[int]]:
    """Yield those that go in one frame, in order: other terms would make another frame, which may overtake."""

    def terms(at: int) -> tuple[int, int, str]:
        return parcels[at].priority, parcels[at].ttl_ms, key_of(parcels[at])

    for _, run in groupby(order, terms):
        yield list(run)


def _publish_of(parcel: Parcel, window_s: float | None) -> dict[str, Any]:
    """Return the arguments of the publish of a parcel."""
    headers = dict(parcel.headers)
    if parcel.id:
        headers[ID] = parcel.id
    if parcel.unix_ms:
        headers[UNIX_MS] = parcel.unix_ms
    if parcel.content_type and parcel.content_type != MSGPACK:
        headers[CONTENT_TYPE] = parcel.content_type
    body = Encoded(parcel.body, wire.ENCODING_MSGPACK) if parcel.is_value else parcel.body
    return {
        "body": body,
        "headers": headers or None,
        "key": bounded(parcel.key) or None,
        "priority": min(parcel.priority, limits.MAX_PRIORITY),
        "ttl": parcel.ttl_ms / 1_000 or None,
        "dedupe_id": bounded(parcel.id) or None,
        "dedupe_window": window_s if parcel.id else None,
    }


def bounded(name: str | None) -> str:
    """Return a key or an id that a message can have: of one that is too long, its hash."""
    name = name or ""
    if len(name.encode("utf-8", "backslashreplace")) <= limits.MAX_KEY_BYTES:
        return name
    return f"sha256:{sha256(name.encode('utf-8', 'backslashreplace')).hexdigest()}"


def _parcel_of(message: minibroker.Message[Any]) -> Parcel:
    try:
        headers = message.headers
    except BodyError:  # of a client that is none of ours
        headers = {}
    headers.pop(ID, None)
    published_ms = message.run.published_unix_ms
    came_ms = headers.pop(UNIX_MS, published_ms)
    content_type = headers.pop(CONTENT_TYPE, "")
    is_value = message.run.encoding == wire.ENCODING_MSGPACK
    return Parcel(
        message.raw,
        message,
        # Numbers of queues are those of one server: with the time no other server has the same. In a retained
        # log a message has one offset for all groups, and whenever they are moved back to it.
        id=f"{message.id if message.offset is None else _place_of(message)}-{published_ms}",
        repeats=message.attempt > 1 or message.marked,
        is_value=is_value,
        content_type=content_type
        if isinstance(content_type, str) and content_type
        else MSGPACK * is_value,
        headers=headers,
        key=message.key,
        unix_ms=came_ms if isinstance(came_ms, int) else published_ms,
    )


def _place_of(message: minibroker.Message[Any]) -> str:
    return f"{message.queue.partition(limits.GROUP_MARK)[0]}@{message.offset}"


def _unix_ms() -> int:
    from time import time_ns

    return time_ns() // 1_000_000
