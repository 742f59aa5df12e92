"""The end of a bridge that is a Redis stream: read by a consumer group, added to by XADD."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Final

import msgpack
import redis.asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

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
)
from minibrokerd.bridges.texts import as_text, text_or_bytes

# Fields of an entry that mean something; each other one is a header. A header of such a name gets a prefix.
BODY: Final = "body"
KEY: Final = "key"
ID: Final = "minibroker-id"
CONTENT_TYPE: Final = "content-type"
PREFIX: Final = "header-"
CLAIM_IDLE_MS: Final = 60_000  # what another consumer has had for so long is taken over
CLAIM_EVERY_S: Final = 15.0
NEW: Final = ">"
# Errors of the server that pass by themselves: no memory, a replica, a start.
PASSES: Final = (
    "OOM",
    "READONLY",
    "LOADING",
    "MISCONF",
    "NOREPLICAS",
    "MASTERDOWN",
    "TRYAGAIN",
    "CLUSTERDOWN",
)
LOST: Final = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)


class _Connected:
    """A client of Redis; errors of the library come out as those of the seam."""

    def __init__(self, address: Address) -> None:
        self.stream = needed(address, "stream")
        self.name = f"redis://{address.place}/{address.path or '0'} stream {self.stream}"
        self.address = address
        self.client: Any = None

    async def connect(self) -> None:
        address = self.address
        (host, port), *_ = address.hosts
        sealed: dict[str, Any] = {}
        if address.ssl is not None:
            sealed = {
                "ssl": True,
                "ssl_ca_certs": address.files.get("ca"),
                "ssl_check_hostname": True,
            }
            sealed |= {
                "ssl_certfile": address.files.get("client_cert"),
                "ssl_keyfile": address.files.get("client_key"),
            }
        self.client = redis.Redis(
            host=host,
            port=port,
            db=int(address.path or 0),
            username=address.user or None,
            password=str(address.password) or None,
            socket_connect_timeout=10,
            socket_timeout=30,
            retry=Retry(
                NoBackoff(), 0
            ),  # the loop tries again, and knows what that means for duplicates
            **sealed,
        )
        await self.call(self.client.ping())

    async def call(self, asked: Any) -> Any:
        """Await an answer."""
        try:
            return await asked
        except LOST as error:
            raise Away(self.words(error)) from error
        except exceptions.RedisError as error:
            kind = Away if str(error).startswith(PASSES) else Refused
            raise kind(self.words(error)) from error

    def words(self, error: object) -> str:
        """Return the text of an error, with whose it is."""
        return f"{self.name}: {self.address.clean(error)}"

    async def leave(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            try:
                await client.aclose()
            except (*LOST, exceptions.RedisError):
                return


class StreamSource(Source):
    """Reads a stream as one consumer of a group: first what this consumer had, then what nobody else works on."""

    def __init__(self, address: Address) -> None:
        self._redis = _Connected(address)
        self.name = self._redis.name
        options = address.options
        self._group = options.get("group", DEFAULT_GROUP)
        self._consumer = options.get("consumer", "bridge")
        self._body = options.get("body", BODY)
        self._deletes = options.get("delete", "no") == "yes"
        self._history: str | None = "0"  # the last entry of this consumer's own that was read again
        self._looked = 0.0

    async def open(self) -> None:
        """Connect, and make the group if it is not there; seam.Source."""
        await self._redis.connect()
        client, stream = self._redis.client, self._redis.stream
        if not await self._redis.call(client.exists(stream)):
            raise Refused(f"{self.name}: there is no such stream")
        try:
            await self._redis.call(client.xgroup_create(stream, self._group, id="0"))
        except Refused as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._history, self._looked = "0", 0.0

    async def take(self, most: int, wait_s: float) -> list[Parcel]:
        """Read entries; seam.Source."""
        while self._history is not None:
            entries = await self._read(most, self._history, None)
            self._history = entries[-1][0].decode() if entries else None
            if parcels := await self._parcels(entries):
                return parcels
        if monotonic() - self._looked > CLAIM_EVERY_S:
            entries = await self._claimed(most)
            if len(entries) < most:
                self._looked = monotonic()
            if parcels := await self._parcels(entries):
                return parcels
        return await self._parcels(await self._read(most, NEW, max(1, round(wait_s * 1_000))))

    async def _read(self, most: int, after: str, block_ms: int | None) -> list[tuple[bytes, Any]]:
        answer = await self._redis.call(
            self._redis.client.xreadgroup(
                self._group, self._consumer, {self._redis.stream: after}, count=most, block=block_ms
            )
        )
        if isinstance(answer, dict):  # as RESP3 has it
            return [entry for pages in answer.values() for page in pages for entry in page]
        return answer[0][1] if answer else []

    async def _claimed(self, most: int) -> list[tuple[bytes, Any]]:
        """Take over what another consumer of the group read long ago, and never acked."""
        answer = await self._redis.call(
            self._redis.client.xautoclaim(
                self._redis.stream, self._group, self._consumer, CLAIM_IDLE_MS, count=most
            )
        )
        entries: list[tuple[bytes, Any]] = answer[1]
        return entries

    async def _parcels(self, entries: Iterable[tuple[bytes, Any]]) -> list[Parcel]:
        """Return entries as parcels; of one that was deleted meanwhile only the id is left, which is acked."""
        gone = [id for id, fields in entries if not fields]
        if gone:
            await self._redis.call(self._redis.client.xack(self._redis.stream, self._group, *gone))
        return [self._parcel(id, fields) for id, fields in entries if fields]

    def _parcel(self, id: bytes, fields: Mapping[bytes, bytes]) -> Parcel:
        entry = id.decode()
        parcel = Parcel(
            b"", id, id=f"redis:{self._redis.stream}:{entry}", unix_ms=int(entry.partition("-")[0])
        )
        named = {name.decode("utf-8", "backslashreplace"): value for name, value in fields.items()}
        if self._body in named:
            parcel.body = named.pop(self._body)
        else:  # no field of it is the body, so all of them are
            parcel.body = msgpack.packb(
                {name: text_or_bytes(value) for name, value in named.items()}
            )
            parcel.is_value = True
            return parcel
        named.pop(ID, None)
        if KEY in named:
            parcel.key = named.pop(KEY).decode("utf-8", "backslashreplace")
        parcel.content_type = named.pop(CONTENT_TYPE, b"").decode("utf-8", "backslashreplace")
        parcel.is_value = parcel.content_type == MSGPACK
        parcel.headers = {
            name.removeprefix(PREFIX): text_or_bytes(value) for name, value in named.items()
        }
        return parcel

    async def is_empty(self) -> bool:
        """Return whether no consumer of the group has an entry that it did not ack."""
        client = self._redis.client
        pending = await self._redis.call(client.xpending(self._redis.stream, self._group))
        return self._history is None and not pending["pending"]

    async def done(self, parcels: Sequence[Parcel]) -> int:
        """Ack them in the group, and delete them where that is asked for."""
        ids = [each.handle for each in parcels]
        pipe = self._redis.client.pipeline(transaction=False)
        pipe.xack(self._redis.stream, self._group, *ids)
        if self._deletes:
            pipe.xdel(self._redis.stream, *ids)
        try:
            await self._redis.call(pipe.execute())
        except Refused as error:  # the group or the stream was deleted meanwhile
            raise Away(str(error)) from error
        return 0

    async def close(self) -> None:
        """Leave."""
        await self._redis.leave()


class StreamSink(Sink):
    """Adds to a stream; that makes it, if it is not there."""

    def __init__(self, address: Address) -> None:
        self._redis = _Connected(address)
        self.name = self._redis.name
        self._body = address.options.get("body", BODY)

    async def open(self) -> None:
        """Connect; seam.Sink."""
        await self._redis.connect()
        kind = await self._redis.call(self._redis.client.type(self._redis.stream))
        if kind not in (b"none", b"stream"):
            raise Refused(f"{self.name}: it is a {kind.decode()}, and no stream")

    async def put(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """Add them in one pipeline; seam.Sink."""
        pipe = self._redis.client.pipeline(transaction=False)
        for parcel in parcels:
            pipe.xadd(self._redis.stream, self._fields(parcel))
        answers = await self._redis.call(pipe.execute(raise_on_error=False))
        outcomes: list[Outcome] = []
        for parcel, answer in zip(parcels, answers, strict=True):
            if isinstance(answer, LOST):
                raise Away(self._redis.words(answer))
            if isinstance(answer, Exception):
                outcomes.append(Later(self._redis.words(answer)))
            else:
                outcomes.append(Stored.UNSURE if parcel.repeats else Stored.NEW)
        return outcomes

    def _fields(self, parcel: Parcel) -> dict[Any, Any]:
        taken = {self._body, KEY, ID, CONTENT_TYPE}
        fields: dict[Any, Any] = {self._body: parcel.body, ID: parcel.id}
        if parcel.key is not None:
            fields[KEY] = parcel.key
        if parcel.content_type:
            fields[CONTENT_TYPE] = parcel.content_type
        for name, value in parcel.headers.items():
            is_taken = name in taken or name.startswith(PREFIX)
            fields[PREFIX + name if is_taken else name] = _field(value)
        return fields

    async def close(self) -> None:
        """Leave."""
        await self._redis.leave()


def _field(value: Any) -> str | bytes:
    return value if isinstance(value, str | bytes) else as_text(value)


def source(address: Address, batch: int) -> Source:
    """Return what takes from there."""
    del batch
    return StreamSource(address)


def sink(address: Address) -> Sink:
    """Return what puts there."""
    return StreamSink(address)
