"""What `peek` shows: messages as they lie in a queue, not delivered."""

from __future__ import annotations

from typing import Any

import msgpack

from minibroker.contract import wire
from minibroker.contract.bodies import decode_body, decode_headers
from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import ProtocolError


class Peeked:
    """A message that was looked at, not delivered.

    `info` has what the server says of it: state, key, published_unix_ms, attempts, redriven, history
    (protocol.md, 6.14).
    """

    __slots__ = ("_headers", "info", "raw")

    def __init__(self, info: dict[str, Any], headers: bytes, raw: bytes) -> None:
        self.info = info
        self._headers = headers
        self.raw = raw

    @property
    def id(self) -> MessageId:
        """The identity of the message."""
        return MessageId(self.info["origin"], self.info["sequence"])

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its ended attempts, oldest first: cause, client, error_class, error_text, times in unix ms."""
        return list(self.info.get("history", ()))

    @property
    def attempts(self) -> dict[str, int]:
        """How many attempts have ended, and are charged to it, by cause."""
        return dict(self.info.get("attempts", {}))

    @property
    def attempt(self) -> int:
        """The number of the attempt that runs now, as its handler sees it (`Message.attempt`); 0: none runs."""
        return sum(self.attempts.values()) + 1 if self.info["state"] == "BEGUN" else 0

    @property
    def body(self) -> Any:
        """The decoded body; BodyError if the bytes are not what their encoding says."""
        return decode_body(self.raw, self.info.get("encoding", wire.ENCODING_BYTES))

    @property
    def headers(self) -> dict[str, Any]:
        """The application's headers; BodyError if they cannot be decoded."""
        return decode_headers(self._headers)

    @property
    def raw_headers(self) -> bytes:
        """The bytes of the headers, a msgpack map; none are no bytes."""
        return self._headers

    def __repr__(self) -> str:
        return f"<Peeked {self.info}>"


class Peeks(list[Peeked]):
    """One page of messages; `next` is where the next page begins, empty on the last one."""

    next: bytes = b""


def unpack_peek(frame: wire.Frame) -> Peeks:
    """Return the messages in a `messages` frame; ProtocolError if its parts do not fit each other."""
    count = frame.header["count"]
    infos, _ = wire.unpack_strings(frame.columns, count)
    if len(frame.lengths) != 8 * count:
        raise ProtocolError("the lengths of a messages frame do not match its count")
    peeked, at = Peeks(), 0
    peeked.next = frame.header.get("next", b"")
    for index, info in enumerate(infos):
        headers_size = int.from_bytes(frame.lengths[8 * index : 8 * index + 4], "little")
        body_size = int.from_bytes(frame.lengths[8 * index + 4 : 8 * index + 8], "little")
        headers = frame.blob[at : at + headers_size]
        raw = frame.blob[at + headers_size : at + headers_size + body_size]
        at += headers_size + body_size
        peeked.append(Peeked(msgpack.unpackb(info), headers, raw))
    return peeked
