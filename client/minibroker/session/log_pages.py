"""What was read of a retained log: messages out of the frames that answer a reader."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, Generic, TypeVar, cast

import msgspec

from minibroker.contract import wire
from minibroker.contract.bodies import decode_body, decode_headers
from minibroker.contract.errors import ProtocolError

Body = TypeVar("Body")


class _Run:
    """What consecutive messages of an answer share."""

    __slots__ = ("encoding", "key", "published_unix_ms")

    def __init__(self, encoding: int, published_unix_ms: int, key: str | None) -> None:
        self.encoding = encoding
        self.published_unix_ms = published_unix_ms
        self.key = key


class LogMessage(msgspec.Struct, Generic[Body], eq=False, gc=False):
    """One message of a retained log, as a reader sees it: nothing is owed for it."""

    run: _Run
    offset: int
    _headers: bytes
    raw: bytes

    @property
    def body(self) -> Body:
        """The body, decoded; BodyError if the bytes are not what their encoding says (`raw` still has them)."""
        body: Any = decode_body(self.raw, self.run.encoding) if self.run.encoding else self.raw
        return cast("Body", body)

    @property
    def headers(self) -> dict[str, Any]:
        """The application's headers, as published; BodyError if they cannot be decoded."""
        return decode_headers(self._headers)

    @property
    def raw_headers(self) -> bytes:
        """The bytes of the headers, a msgpack map; none are no bytes."""
        return self._headers

    @property
    def key(self) -> str | None:
        """The key it was published with; None if it has none."""
        return self.run.key

    @property
    def published_at(self) -> datetime:
        """When the server took it, by the server's wall clock (UTC)."""
        return datetime.fromtimestamp(self.run.published_unix_ms / 1000, UTC)

    def __repr__(self) -> str:
        return f"<LogMessage {self.offset}, {len(self.raw)} bytes>"


class LogPage(list[LogMessage[Any]]):
    """Messages that were read; `next` is the offset to go on at, `first` and `stop` bound what the log has.

    `damaged`: so many messages at the most between the last page and the end of this one could not be read.
    """

    next: int = 0
    first: int = 0
    stop: int = 0
    damaged: int = 0


def unpack_page(frame: wire.Frame) -> LogPage:
    """Return the messages in a `log` frame; ProtocolError if its parts do not fit each other."""
    header, page = frame.header, LogPage()
    count, columns = header["count"], header["runs"] * wire.DELIVERY_RUN.size
    try:
        lengths = struct.unpack(f"<{2 * count}I", frame.lengths)
        rows = list(wire.DELIVERY_RUN.iter_unpack(frame.columns[:columns]))
    except struct.error as error:
        raise ProtocolError(f"the server sent a log that does not add up: {error}") from error
    if sum(row[2] for row in rows) != count or sum(lengths) != len(frame.blob):
        raise ProtocolError("the runs or lengths of a log frame do not cover its messages")
    keys: list[str | None] = [None] * len(rows)
    if header.get("keyed"):
        packed, _ = wire.unpack_strings(frame.columns[columns:], len(rows))
        keys = [key.decode() or None for key in packed]
    blob, at, append, start = frame.blob, 0, page.append, header["start"]
    ends = accumulate(lengths)
    cuts = zip(ends, ends, strict=True)
    for (_, first, run_count, _, _, encoding, published), key in zip(rows, keys, strict=True):
        run = _Run(encoding, published, key)
        for offset, (body_at, end) in zip(range(first, first + run_count), cuts, strict=False):
            if offset >= start:  # frames come as they are stored
                append(LogMessage(run, offset, blob[at:body_at], blob[body_at:end]))
            at = end
    page.next, page.first, page.stop = header["next"], header["first"], header["stop"]
    page.damaged = header.get("damaged", 0)
    return page
