"""The end of a bridge that is RabbitMQ, by AMQP 0-9-1: a queue to take from, a queue or an exchange to put to.

Messages are acked by the tag of the last of a batch, and published as persistent with confirms. What no queue
takes comes back (`mandatory`), so nothing is dropped there in silence.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import aio_pika
from aio_pika import IncomingMessage
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    ProbableAuthenticationError,
    PublishError,
)
from pamqp import encode

from minibrokerd.bridges.addresses import Address, needed
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

CONNECT_S: Final = 10.0
CONFIRM_S: Final = 60.0
LOST: Final = (AMQPError, OSError, RuntimeError, TimeoutError)
NOT_LET: Final = (AuthenticationError, ProbableAuthenticationError)
NO_PLACE: Final = (ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed)
# Properties that are headers on this side: they go back to where they were when the message does.
PREFIX: Final = "amqp-"
PROPERTIES: Final = (
    "content_encoding",
    "correlation_id",
    "reply_to",
    "message_id",
    "type",
    "app_id",
)
ROUTING_KEY: Final = f"{PREFIX}routing-key"
EXCHANGE: Final = f"{PREFIX}exchange"
KEY: Final = "minibroker-key"
# What a channel is closed with on a message beyond max_message_size.
TOO_MUCH: Final = "PRECONDITION_FAILED"
FRAME_RESERVE: Final = 2_048  # of the frame of the header: properties, and what stands around them
LONGEST_PROPERTY: Final = 255


class _Connected:
    """A connection with one channel; how it was lost, once it is."""

    def __init__(self, address: Address) -> None:
        self.address = address
        vhost = "" if address.path in ("", "/") else f"/{address.path}"
        self.name = f"amqp://{address.place}{vhost}"
        self.connection: Any = None
        self.channel: Any = None
        self.lost = ""
        self.stirred = asyncio.Event()  # something arrived, or the connection is lost

    async def connect(self) -> None:
        address, self.lost = self.address, ""
        self.stirred.clear()
        (host, port), *_ = address.hosts
        try:
            self.connection = await aio_pika.connect(
                host=host,
                port=port,
                login=address.user or "guest",
                password=str(address.password) or "guest",
                virtualhost=address.path or "/",
                ssl=address.ssl is not None,
                ssl_context=address.ssl,
                timeout=CONNECT_S,
                client_properties={"connection_name": "minibroker bridge"},
            )
            await self.new_channel()
        except NOT_LET as error:
            raise Away(f"{self.name} does not let {address.user or 'guest'} in") from error
        except LOST as error:
            raise Away(self.words(error)) from error

    async def new_channel(self) -> None:
        self.channel = await self.connection.channel(publisher_confirms=True, on_return_raises=True)
        self.channel.close_callbacks.add(self._closed)

    def words(self, error: object) -> str:
        """Return the text of an error; some have none, and some have the url."""
        return f"{self.name}: {self.address.clean(error)}"

    def _closed(self, channel: Any, error: BaseException | None) -> None:
        if channel is self.channel:
            self.lose(error or "the channel was closed")

    def lose(self, error: object) -> None:
        self.lost = self.words(error)
        self.stirred.set()

    async def leave(self) -> None:
        connection, self.connection, self.channel = self.connection, None, None
        if connection is not None:
            try:
                await connection.close()
            except LOST:
                return


class QueueSource(Source):
    """Consumes a queue, with twice a batch in hand at most; what is not acked goes back when it leaves."""

    def __init__(self, address: Address, batch: int) -> None:
        self._amqp = _Connected(address)
        self._queue_name = needed(address, "queue")
        self.name = self._amqp.name = f"{self._amqp.name} queue {self._queue_name}"
        self._batch = batch
        self._acked = 0  # up to this tag all are
        self._arrived: deque[Any] = deque()

    async def open(self) -> None:
        """Connect and consume; seam.Source."""
        self._arrived.clear()
        self._acked = 0
        await self._amqp.connect()
        channel = self._amqp.channel
        try:
            await channel.set_qos(prefetch_count=min(2 * self._batch, 65_535))
            await channel.get_queue(self._queue_name)
            underlay = await channel.get_underlay_channel()
            underlay.on_consumer_cancel_callbacks.add(self._cancelled)
            await underlay.basic_consume(self._queue_name, self._arrive)
        except NO_PLACE as error:
            raise Refused(self._amqp.words(error)) from error
        except LOST as error:
            raise Away(self._amqp.words(error)) from error

    async def _cancelled(self, _: Any) -> None:
        self._amqp.lose("the queue was deleted, or moved")

    async def _arrive(self, message: Any) -> None:
        self._arrived.append(IncomingMessage(message))
        self._amqp.stirred.set()

    async def take(self, most: int, wait_s: float) -> list[Parcel]:
        """Return what has arrived; seam.Source."""
        if not self._arrived and not self._amqp.lost:
            self._amqp.stirred.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._amqp.stirred.wait()
            except TimeoutError:
                return []
        if self._amqp.lost:
            raise Away(self._amqp.lost)
        return [self._parcel(self._arrived.popleft()) for _ in range(min(most, len(self._arrived)))]

    def _parcel(self, message: Any) -> Parcel:
        headers = {str(name): _value(value) for name, value in message.headers.items()}
        key = headers.pop(KEY, None)
        for name in PROPERTIES:
            if value := getattr(message, name):
                headers[PREFIX + name.replace("_", "-")] = value
        if message.exchange:
            headers[EXCHANGE] = message.exchange
            headers[ROUTING_KEY] = message.routing_key
        name = message.message_id
        return Parcel(
            message.body,
            message,
            id=f"amqp:{self._queue_name}:{name}" if name else "",
            repeats=bool(message.redelivered),
            is_value=message.content_type == MSGPACK,
            content_type=message.content_type or "",
            headers=headers,
            key=key if isinstance(key, str) else None,
            priority=message.priority or 0,
            ttl_ms=round((message.expiration or 0) * 1_000),
            unix_ms=round(message.timestamp.timestamp() * 1_000) if message.timestamp else 0,
        )

    async def is_empty(self) -> bool:
        """Return whether the server has none ready, and none has arrived."""
        try:
            declared = await self._amqp.channel.declare_queue(self._queue_name, passive=True)
        except LOST as error:
            raise Away(self._amqp.words(error)) from error
        return not self._arrived and not declared.declaration_result.message_count

    async def done(self, parcels: Sequence[Parcel]) -> int:
        """Ack them: at once up to the tag of the last one, if nothing else stands before it."""
        if self._amqp.lost:
            raise Away(self._amqp.lost)
        last = parcels[-1].handle
        is_whole = last.delivery_tag == self._acked + len(parcels)
        try:
            for parcel in () if is_whole else parcels[:-1]:
                await parcel.handle.ack()
            await last.ack(multiple=is_whole)
        except LOST as error:
            raise Away(self._amqp.words(error)) from error
        self._acked = last.delivery_tag
        return 0

    async def close(self) -> None:
        """Leave; what was not acked goes back to the queue."""
        await self._amqp.leave()


class QueueSink(Sink):
    """Publishes with confirms, to a queue by the default exchange or to an exchange."""

    def __init__(self, address: Address) -> None:
        self._amqp = _Connected(address)
        needed(address, "queue", "exchange")
        self._queue_name = address.options.get("queue", "")
        self._exchange_name = address.options.get("exchange", "")
        if self._queue_name and self._exchange_name:
            raise ValueError("a url has a queue or an exchange, and not both")
        place = (
            f"queue {self._queue_name}" if self._queue_name else f"exchange {self._exchange_name}"
        )
        self.name = self._amqp.name = f"{self._amqp.name} {place}"
        self._exchange: Any = None
        self._frame_max = 131_072

    async def open(self) -> None:
        """Connect, and see that the place is there; seam.Sink."""
        await self._amqp.connect()
        await self._find()

    async def _find(self) -> None:
        channel = self._amqp.channel
        try:
            if self._exchange_name:
                self._exchange = await channel.get_exchange(self._exchange_name)
            else:
                await channel.get_queue(self._queue_name)
                self._exchange = channel.default_exchange
            tune = (await channel.get_underlay_channel()).connection.connection_tune
            self._frame_max = tune.frame_max or self._frame_max
        except NO_PLACE as error:
            raise Refused(self._amqp.words(error)) from error
        except LOST as error:
            raise Away(self._amqp.words(error)) from error

    async def put(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """Publish them, and await all confirms; seam.Sink."""
        said = await asyncio.gather(*map(self._publish, parcels))
        if any(isinstance(each, Exception) for each in said):
            await asyncio.sleep(0)  # how the channel ended is told behind those who wait
            if not any(isinstance(each, ChannelPreconditionFailed) for each in said) and (
                TOO_MUCH not in self._amqp.lost
            ):
                error = next(each for each in said if isinstance(each, Exception))
                raise Away(self._amqp.lost or self._amqp.words(error)) from error
        # One of them closed the channel, if any is an error, and which is not said: each again, alone.
        return [
            await self._alone(parcel) if isinstance(each, Exception) else each
            for parcel, each in zip(parcels, said, strict=True)
        ]

    async def _alone(self, parcel: Parcel) -> Outcome:
        try:
            await self._amqp.new_channel()
        except LOST as error:
            raise Away(self._amqp.words(error)) from error
        await self._find()
        parcel.repeats = True
        said = await self._publish(parcel)
        if not isinstance(said, Exception):
            return said
        await asyncio.sleep(0)
        if isinstance(said, ChannelPreconditionFailed) or TOO_MUCH in self._amqp.lost:
            return Unfit(f"the channel was closed on it: {self._amqp.address.clean(said)}")
        raise Away(self._amqp.lost or self._amqp.words(said)) from said

    async def _publish(self, parcel: Parcel) -> Outcome | Exception:
        """Publish one; an error is one of the channel, so of all that were on their way."""
        try:
            message, routing_key = self._message(parcel)
        except (TypeError, ValueError, OverflowError) as error:
            return Unfit(f"its headers are none of AMQP: {error}")
        size = len(encode.field_table(message.headers)) + FRAME_RESERVE
        if size > self._frame_max:
            return Unfit(f"its headers take {size} bytes, and a frame here has {self._frame_max}")
        try:
            await self._exchange.publish(message, routing_key, timeout=CONFIRM_S)
        except PublishError as error:
            text = f"no queue takes the routing key {routing_key!r}"
            return (
                Unfit(text) if self._exchange_name else Later(f"{self._amqp.words(error)}: {text}")
            )
        except DeliveryError:
            return Later(f"{self.name}: it takes no more, as it is at a limit")
        except LOST as error:
            return error
        return Stored.UNSURE if parcel.repeats else Stored.NEW

    def _message(self, parcel: Parcel) -> tuple[Any, str]:
        headers = dict(parcel.headers)
        properties: dict[str, Any] = {}
        for name in PROPERTIES:
            value = headers.get(PREFIX + name.replace("_", "-"))
            if isinstance(value, str) and 0 < len(value.encode()) <= LONGEST_PROPERTY:
                properties[name] = headers.pop(PREFIX + name.replace("_", "-"))
        properties.setdefault("message_id", parcel.id)
        came_from = headers.pop(EXCHANGE, None)
        routing_key = headers.get(ROUTING_KEY, "")
        if came_from is not None:
            headers.pop(ROUTING_KEY, None)
        if parcel.key is not None:
            headers[KEY] = parcel.key
        message = aio_pika.Message(
            parcel.body,
            headers=headers,
            content_type=parcel.content_type or None,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            priority=parcel.priority or None,
            expiration=parcel.ttl_ms / 1_000 or None,
            timestamp=datetime.fromtimestamp(parcel.unix_ms / 1_000, UTC)
            if parcel.unix_ms
            else None,
            **properties,
        )
        given = self._amqp.address.options.get("routing_key")
        if not self._exchange_name:
            return message, self._queue_name
        return message, given if given is not None else str(routing_key)

    async def close(self) -> None:
        """Leave."""
        await self._amqp.leave()


def _value(value: Any) -> Any:
    """Return a value of a table of AMQP as a header can have it."""
    if isinstance(value, dict):
        return {str(name): _value(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_value(each) for each in value]
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return value


def source(address: Address, batch: int) -> Source:
    """Return what takes from there."""
    return QueueSource(address, batch)


def sink(address: Address) -> Sink:
    """Return what puts there."""
    return QueueSink(address)
