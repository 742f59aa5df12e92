"""The end of a bridge that is NATS JetStream: a durable pull consumer of a stream, or a subject that one takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import nats
from nats import errors
from nats.js import api
from nats.js import errors as js_errors

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
from minibrokerd.bridges.texts import as_text

CONNECT_S: Final = 10
ACK_WAIT_S: Final = 15.0  # then what was taken and not acked comes again
ANSWER_S: Final = 15.0
CONTENT_TYPE: Final = "content-type"
KEY: Final = "minibroker-key"
SUBJECT: Final = "nats-subject"
MSG_ID: Final = "Nats-Msg-Id"
OWN: Final = "Nats-"  # headers of the server's own
TOO_LARGE: Final = 10054  # "message size exceeds maximum allowed"
LOST: Final = (errors.Error, OSError, TimeoutError)


class _Connected:
    """A connection that is made anew when it is lost: the library's own way back would keep what it was."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.name = f"nats://{address.place}"
        self.client: Any = None
        self.stream: Any = None  # the client of JetStream
        self.lost: asyncio.Event = asyncio.Event()

    async def connect(self) -> None:
        address, self.lost = self.address, asyncio.Event()
        lost = self.lost

        async def closed() -> None:
            lost.set()

        async def quiet(error: Exception) -> None:
            """Say nothing: what waits for an answer is told."""

        login: dict[str, Any] = {}
        if address.user:
            login = {"user": address.user, "password": str(address.password)}
        elif address.password:
            login = {"token": str(address.password)}
        scheme = "tls" if address.ssl is not None else "nats"
        servers = [f"{scheme}://{place}" for place in address.place.split(",")]
        try:
            self.client = await nats.connect(
                servers=servers,
                name="minibroker bridge",
                allow_reconnect=False,
                connect_timeout=CONNECT_S,
                tls=address.ssl,
                closed_cb=closed,
                disconnected_cb=closed,
                error_cb=quiet,
                **login,
            )
        except LOST as error:
            raise Away(self.words(error)) from error
        self.stream = self.client.jetstream(timeout=ANSWER_S)

    def words(self, error: object) -> str:
        return f"{self.name}: {self.address.clean(error)}"

    async def leave(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            try:
                await client.close()
            except LOST:
                return


class StreamSource(Source):
    """Reads a stream by a durable consumer with acks for each message."""

    def __init__(self, address: Address, batch: int) -> None:
        self._nats = _Connected(address)
        self._stream = needed(address, "stream")
        self._durable = address.options.get("durable", DEFAULT_GROUP)
        self._subject = address.options.get("subject", "")
        self.name = self._nats.name = f"{self._nats.name} stream {self._stream}"
        self._batch = batch
        self._pull: Any = None

    async def open(self) -> None:
        """Connect, and make the consumer if it is not there; seam.Source."""
        await self._nats.connect()
        stream = self._nats.stream
        try:
            try:
                await stream.consumer_info(self._stream, self._durable)
            except js_errors.NotFoundError:
                await stream.add_consumer(
                    self._stream,
                    durable_name=self._durable,
                    ack_policy=api.AckPolicy.EXPLICIT,
                    deliver_policy=api.DeliverPolicy.ALL,
                    ack_wait=ACK_WAIT_S,
                    max_ack_pending=2 * self._batch,
                    filter_subject=self._subject or None,
                )
            self._pull = await stream.pull_subscribe_bind(self._durable, self._stream)
        except js_errors.NotFoundError as error:
            raise Refused(
                f"{self.name}: {error.description or 'there is no such stream'}"
            ) from error
        except LOST as error:
            raise Away(self._nats.words(error)) from error

    async def take(self, most: int, wait_s: float) -> list[Parcel]:
        """Fetch messages; seam.Source."""
        if self._nats.lost.is_set():
            raise Away(self._nats.words("the connection was lost"))
        try:
            messages = await self._pull.fetch(most, timeout=wait_s)
        except TimeoutError:
            return []
        except LOST as error:
            raise Away(self._nats.words(error)) from error
        return [self._parcel(each) for each in messages]

    def _parcel(self, message: Any) -> Parcel:
        said = message.metadata
        unix_ms = round(said.timestamp.timestamp() * 1_000)
        headers: dict[str, Any] = {
            name: value
            for name, value in (message.headers or {}).items()
            if not name.startswith(OWN)
        }
        headers[SUBJECT] = message.subject
        content_type = headers.pop(CONTENT_TYPE, "")
        return Parcel(
            message.data,
            message,
            # With its time: a stream that is deleted and made again begins at 1.
            id=f"nats:{self._stream}:{said.sequence.stream}:{unix_ms}",
            is_value=content_type == MSGPACK,
            content_type=content_type,
            key=headers.pop(KEY, None),
            headers=headers,
            unix_ms=unix_ms,
        )

    async def is_empty(self) -> bool:
        """Return whether the consumer has nothing left, and waits for no ack."""
        try:
            info = await self._pull.consumer_info()
        except LOST as error:
            raise Away(self._nats.words(error)) from error
        return not info.num_pending and not info.num_ack_pending

    async def done(self, parcels: Sequence[Parcel]) -> int:
        """Ack them; the answer to the last one says that the server has all."""
        try:
            for parcel in parcels[:-1]:
                await parcel.handle.ack()
            await parcels[-1].handle.ack_sync(timeout=ANSWER_S)
        except LOST as error:
            raise Away(self._nats.words(error)) from error
        return 0

    async def keep(self, parcels: Sequence[Parcel]) -> None:
        """Say that they are in progress, or they would come again."""
        await self._each(parcels, "in_progress")

    async def give_back(self, parcels: Sequence[Parcel]) -> None:
        """Let them come again at once."""
        await self._each(parcels, "nak")

    async def _each(self, parcels: Sequence[Parcel], verb: str) -> None:
        try:
            for parcel in parcels:
                await getattr(parcel.handle, verb)()
            if parcels and self._nats.client is not None:
                await self._nats.client.flush(timeout=5)
        except LOST as error:
            raise Away(self._nats.words(error)) from error

    async def close(self) -> None:
        """Leave; the consumer stays, with its position."""
        await self._nats.leave()


class SubjectSink(Sink):
    """Publishes to a subject of a stream, with ids by which the stream knows what it had, within its window."""

    def __init__(self, address: Address) -> None:
        self._nats = _Connected(address)
        self._subject = needed(address, "subject")
        self.name = self._nats.name = f"{self._nats.name} subject {self._subject}"

    async def open(self) -> None:
        """Connect, and see that a stream takes the subject; seam.Sink."""
        await self._nats.connect()
        try:
            await self._nats.stream.find_stream_name_by_subject(self._subject)
        except js_errors.NotFoundError as error:
            raise Refused(f"{self.name}: no stream takes it") from error
        except LOST as error:
            raise Away(self._nats.words(error)) from error

    async def put(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """Publish them, and await the answers; seam.Sink."""
        asked: list[Any] = []
        for parcel in parcels:
            asked.append(await self._ask(parcel))
        waits = {each for each in asked if isinstance(each, asyncio.Future)}
        if waits:
            lost: asyncio.Future[Any] = asyncio.ensure_future(self._nats.lost.wait())
            answers: asyncio.Future[Any] = asyncio.gather(*waits, return_exceptions=True)
            await asyncio.wait(
                {answers, lost}, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED
            )
            lost.cancel()
            if not all(each.done() for each in waits):
                for each in waits:
                    each.cancel()
                raise Away(self._nats.words("there was no answer"))
        return [self._outcome(*pair) for pair in zip(parcels, asked, strict=True)]

    async def _ask(self, parcel: Parcel) -> Any:
        """Return the future of an answer, or an outcome without one."""
        headers = _headers(parcel)
        # A message that is larger than the server takes ends the connection; the library looks at bodies alone.
        size = (
            len(parcel.body)
            + sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())
            + 14
        )
        most = self._nats.client.max_payload
        if size > most:
            return Unfit(f"it takes {size} bytes with its headers, and {self.name} takes {most}")
        try:
            return await self._nats.stream.publish_async(
                self._subject, parcel.body, headers=headers
            )
        except LOST as error:
            raise Away(self._nats.words(error)) from error

    def _outcome(self, parcel: Parcel, asked: Any) -> Outcome:
        if isinstance(asked, Unfit):
            return asked
        error = asked.exception()
        if isinstance(error, js_errors.APIError) and error.err_code == TOO_LARGE:
            return Unfit(f"{self.name}: {error.description}")
        if error is not None:
            return Later(self._nats.words(error))
        return Stored.KNOWN if asked.result().duplicate else Stored.NEW

    async def close(self) -> None:
        """Leave."""
        await self._nats.leave()


def _headers(parcel: Parcel) -> dict[str, str]:
    headers = {name: as_text(value) for name, value in parcel.headers.items() if name != SUBJECT}
    if parcel.key is not None:
        headers[KEY] = parcel.key
    if parcel.content_type:
        headers[CONTENT_TYPE] = parcel.content_type
    headers[MSG_ID] = parcel.id
    return {_line(name): _line(value) for name, value in headers.items()}


def _line(text: str) -> str:
    """Return what can stand in a line of a header: an end of a line in it would begin another one."""
    return text.replace("\r", " ").replace("\n", " ")


def source(address: Address, batch: int) -> Source:
    """Return what takes from there."""
    return StreamSource(address, batch)


def sink(address: Address) -> Sink:
    """Return what puts there."""
    return SubjectSink(address)
