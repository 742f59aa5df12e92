"""The end of a bridge that is a topic of Kafka: read by a consumer group, written by an idempotent producer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordTooLargeError,
)

from minibrokerd.bridges.addresses import DEFAULT_GROUP, Address, needed
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
from minibrokerd.bridges.texts import as_text, text_or_bytes

CONTENT_TYPE: Final = "content-type"
ID: Final = "minibroker-id"
TOO_LARGE: Final = (MessageSizeTooLargeError, RecordTooLargeError)
LARGEST: Final = 64 * 1024 * 1024  # the server says what is too large, not the client
# A batch may wait for as long as the other side is away; that this process lives is told by its heartbeats.
LONGEST_WAIT_MS: Final = 24 * 3_600_000
LOST: Final = (KafkaError, OSError, TimeoutError)


def _settings(address: Address) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "bootstrap_servers": address.place.split(","),
        "client_id": "minibroker-bridge",
        "request_timeout_ms": 15_000,
    }
    protocol = "PLAINTEXT" if address.ssl is None else "SSL"
    if address.user:
        protocol = f"SASL_{protocol}"
        settings |= {
            "sasl_mechanism": address.options.get("sasl", "PLAIN"),
            "sasl_plain_username": address.user,
            "sasl_plain_password": str(address.password),
        }
    return {**settings, "security_protocol": protocol, "ssl_context": address.ssl}


class TopicSource(Source):
    """Reads a topic; the position is that of its group, and is committed when the other side has all before it."""

    has_position = True

    def __init__(self, address: Address) -> None:
        self._address = address
        self._topic = needed(address, "topic")
        self.name = f"kafka://{address.place} topic {self._topic}"
        self._consumer: Any = None

    async def open(self) -> None:
        """Connect, and join the group; seam.Source."""
        self._consumer = AIOKafkaConsumer(
            self._topic,
            group_id=self._address.options.get("group", DEFAULT_GROUP),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_poll_interval_ms=LONGEST_WAIT_MS,
            **_settings(self._address),
        )
        try:
            await self._consumer.start()
            if self._topic not in await self._consumer.topics():
                raise Refused(f"{self.name}: there is no such topic")
        except LOST as error:
            raise Away(self._words(error)) from error

    def _words(self, error: object) -> str:
        return f"{self.name}: {self._address.clean(error)}"

    async def take(self, most: int, wait_s: float) -> list[Parcel]:
        """Return records of all partitions that this member has; seam.Source."""
        try:
            found = await self._consumer.getmany(timeout_ms=round(wait_s * 1_000), max_records=most)
        except LOST as error:
            raise Away(self._words(error)) from error
        return [_parcel(record) for records in found.values() for record in records]

    async def is_empty(self) -> bool:
        """Return whether the group has come to the end of each partition, whoever of it reads that one."""
        try:
            parts = self._consumer.partitions_for_topic(self._topic) or set()
            places = [TopicPartition(self._topic, part) for part in parts]
            ends = await self._consumer.end_offsets(places)
            starts = await self._consumer.beginning_offsets(places)
            for place in places:
                if ends[place] > starts[place] and await self._position(place) < ends[place]:
                    return False
        except LOST as error:
            raise Away(self._words(error)) from error
        return bool(places)

    async def _position(self, place: TopicPartition) -> int:
        if place in self._consumer.assignment():
            async with asyncio.timeout(10):
                return int(await self._consumer.position(place))
        return int(await self._consumer.committed(place) or 0)

    async def done(self, parcels: Sequence[Parcel]) -> int:
        """Commit the place behind the last of each partition."""
        places: dict[Any, int] = {}
        for parcel in parcels:
            place, offset = parcel.handle
            places[place] = max(offset + 1, places.get(place, 0))
        try:
            await self._consumer.commit(places)
        except (CommitFailedError, IllegalStateError) as error:
            raise Away(self._words("another member of the group has the partition now")) from error
        except LOST as error:
            raise Away(self._words(error)) from error
        return 0

    async def close(self) -> None:
        """Leave the group."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                await consumer.stop()
            except LOST:
                return


def _parcel(record: Any) -> Parcel:
    headers = {name: text_or_bytes(value or b"") for name, value in record.headers}
    headers.pop(ID, None)
    content_type = headers.pop(CONTENT_TYPE, "")
    key = None if record.key is None else record.key.decode("utf-8", "backslashreplace")
    return Parcel(
        record.value or b"",
        (TopicPartition(record.topic, record.partition), record.offset),
        # With its time: a topic that is deleted and made again begins at the same offsets.
        id=f"kafka:{record.topic}:{record.partition}:{record.offset}:{record.timestamp}",
        is_value=content_type == MSGPACK,
        content_type=content_type if isinstance(content_type, str) else "",
        headers=headers if record.value is not None else {**headers, "kafka-tombstone": True},
        key=key,
        unix_ms=max(0, record.timestamp),
    )


class TopicSink(Sink):
    """Sends to a topic; a key of a message is that of its record, so what has one keeps its order."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._topic = needed(address, "topic")
        self.name = f"kafka://{address.place} topic {self._topic}"
        self._producer: Any = None

    async def open(self) -> None:
        """Connect; seam.Sink."""
        self._producer = AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            max_request_size=LARGEST,
            **_settings(self._address),
        )
        try:
            await self._producer.start()
            await self._producer.partitions_for(self._topic)
        except LOST as error:
            raise Away(self._words(error)) from error

    def _words(self, error: object) -> str:
        return f"{self.name}: {self._address.clean(error)}"

    async def put(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """Send them, and await what the server says of each; seam.Sink."""
        said = await self._sent(parcels)
        if not any(isinstance(each, TOO_LARGE) for each in said):
            return self._outcomes(parcels, said)
        # The error is that of a whole batch of records, and the producer has used numbers that never came there.
        await self._again()
        outcomes: list[Outcome] = []
        for parcel, each in zip(parcels, said, strict=True):
            if isinstance(each, BaseException):
                (each,) = await self._sent([parcel])
                if isinstance(each, TOO_LARGE):
                    outcomes.append(Unfit(f"{self.name} takes no message of its size: {each}"))
                    await self._again()
                    continue
            outcomes += self._outcomes([parcel], [each])
        return outcomes

    async def _again(self) -> None:
        await self.close()
        await self.open()

    async def _sent(self, parcels: Sequence[Parcel]) -> list[Any]:
        said: list[Any] = []
        for parcel in parcels:
            key = None if parcel.key is None else parcel.key.encode()
            try:
                said.append(
                    await self._producer.send(
                        self._topic,
                        parcel.body,
                        key,
                        timestamp_ms=parcel.unix_ms or None,
                        headers=_headers(parcel),
                    )
                )
            except LOST as error:
                said.append(error)
        futures = [each for each in said if isinstance(each, asyncio.Future)]
        await asyncio.gather(*futures, return_exceptions=True)
        return [_result(each) for each in said]

    def _outcomes(self, parcels: Sequence[Parcel], said: Sequence[Any]) -> list[Outcome]:
        failed = next((each for each in said if isinstance(each, BaseException)), None)
        if failed is not None and len(parcels) == sum(
            isinstance(each, BaseException) for each in said
        ):
            raise Away(self._words(failed)) from failed
        outcomes: list[Outcome] = []
        for parcel, each in zip(parcels, said, strict=True):
            if isinstance(each, BaseException):
                outcomes.append(Later(self._words(each)))
            else:
                outcomes.append(Stored.UNSURE if parcel.repeats else Stored.NEW)
        return outcomes

    async def close(self) -> None:
        """Leave; what is not confirmed is not waited for."""
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                async with asyncio.timeout(5):
                    await producer.stop()
            except LOST:
                return


def _headers(parcel: Parcel) -> list[tuple[str, bytes]]:
    named: Mapping[str, Any] = {**parcel.headers, ID: parcel.id}
    if parcel.content_type:
        named = {**named, CONTENT_TYPE: parcel.content_type}
    return [
        (name, value if isinstance(value, bytes) else as_text(value).encode())
        for name, value in named.items()
    ]


def _result(each: Any) -> Any:
    """Return what a future came to, an error as a value."""
    if not isinstance(each, asyncio.Future):
        return each
    if each.cancelled():
        return TimeoutError("the producer was closed")
    return each.exception() or each.result()


def source(address: Address, batch: int) -> Source:
    """Return what takes from there."""
    del batch
    return TopicSource(address)


def sink(address: Address) -> Sink:
    """Return what puts there."""
    return TopicSink(address)
