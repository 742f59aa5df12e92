"""Messages as `export` writes and `import` reads them: one JSON object a line, or msgpack maps one after another.

What an import publishes is the body, its encoding, headers, key, delay and terms of a message. The rest of what an
export writes (id, state, attempts, history) is for whoever reads it: those are made by the life in a queue. That
one waited for others (`after`) cannot be taken over, as these are of another life: an import says so, and asks.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgpack

from minibroker.contract import limits, wire
from minibroker.contract.bodies import (
    Encoded,
    decode_body,
    decode_headers,
    encode_body,
    encode_headers,
)
from minibroker.contract.errors import BodyError
from minibroker.session.log_pages import LogMessage
from minibroker.session.peek import Peeked

ENCODINGS: Final = {"bytes": wire.ENCODING_BYTES, "msgpack": wire.ENCODING_MSGPACK}
TAKEN: Final = frozenset(
    (
        "body", "body_base64", "encoding", "headers", "headers_base64", "key",
        "delay_ms", "ready_unix_ms", "max_attempts", "lease_ms", "priority", "ttl_ms", "expires_unix_ms", "after",
    )
)  # fmt: skip
LONGEST_LINE: Final = 2 * limits.MAX_MESSAGE_BYTES + 1024 * 1024  # base64, and a history
HISTORY: Final = ("attempts", "redriven", "history")
WRITTEN_ONLY: Final = (
    "id",
    "offset",
    "state",
    "published_unix_ms",
    "dead",
    *HISTORY,
)  # and not taken over


class Carried(NamedTuple):
    """One message to be published; times in ms, 0 and None where nothing was said."""

    body: Any
    headers: Mapping[str, Any] | None = None
    key: str | None = None
    delay_ms: int = 0
    ready_unix_ms: int = 0
    max_attempts: int | None = None
    lease_ms: int | None = None
    priority: int = 0
    ttl_ms: int = 0
    expires_unix_ms: int = 0
    after: str = ""  # for whom it waited where it was written: a new one cannot
    others: frozenset[str] = frozenset()  # names of what else was said

    def delay_at(self, unix_ms: int) -> int:
        """Return how long it is delayed, in ms, when it is published now."""
        if self.ready_unix_ms:
            return max(self.ready_unix_ms - unix_ms, 0)
        return self.delay_ms

    def ttl_at(self, unix_ms: int) -> int:
        """Return its time to live, in ms, when it is published now; 0: it has none.

        One whose time is over has a moment left: its new queue says what becomes of it.
        """
        if self.expires_unix_ms:
            return max(self.expires_unix_ms - unix_ms, 1)
        return self.ttl_ms


def as_fields(message: Peeked) -> dict[str, Any]:
    """Return a message as a map of plain values; the body and the headers are their bytes."""
    info = message.info
    fields: dict[str, Any] = {"id": str(message.id), "state": info["state"].lower()}
    fields["encoding"] = info.get("encoding", wire.ENCODING_BYTES)
    fields |= {"body": message.raw, "headers": message.raw_headers, "key": info["key"]}
    for name in (
        "ready_unix_ms",
        "max_attempts",
        "lease_ms",
        "priority",
        "expires_unix_ms",
        "published_unix_ms",
        "dead",
        "after",
    ):
        if info.get(name):
            fields[name] = info[name]
    if info.get("history") or any(info.get("attempts", {}).values()):
        fields |= {name: info[name] for name in HISTORY}
    return {
        name: value for name, value in fields.items() if value not in ("", b"") or name == "body"
    }


def logged_fields(message: LogMessage[Any]) -> dict[str, Any]:
    """Return a message of a retained log as such a map."""
    fields: dict[str, Any] = {"offset": message.offset, "encoding": message.run.encoding}
    fields |= {"body": message.raw, "published_unix_ms": message.run.published_unix_ms}
    if message.raw_headers:
        fields["headers"] = message.raw_headers
    return fields | ({"key": message.key} if message.key else {})


def packed(fields: dict[str, Any]) -> bytes:
    """Return the fields of `as_fields` as one msgpack map."""
    data: bytes = msgpack.packb(fields)
    return data


def line(fields: dict[str, Any]) -> bytes:
    """Return the fields of `as_fields` as one line of JSON that a program can take for what it says.

    A body is its value if JSON gives back the same bytes, else `body_base64` has those.
    """
    fields = dict(fields)
    raw, number = fields.pop("body"), fields.pop("encoding")
    names = {value: name for name, value in ENCODINGS.items()}
    fields["encoding"] = names.get(number, number)
    value = _value_of(raw, number)
    fields |= {"body_base64": _base64(raw)} if value is None else {"body": value[0]}
    headers = fields.pop("headers", b"")
    if headers:
        exact = _value_of(headers, wire.ENCODING_MSGPACK)
        if exact is not None and isinstance(exact[0], dict):
            fields["headers"] = exact[0]
        else:
            fields["headers_base64"] = _base64(headers)
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def _value_of(raw: bytes, encoding: int) -> tuple[Any] | None:
    """Return what JSON can carry so that the same bytes come of it; None: nothing."""
    try:
        if encoding == wire.ENCODING_BYTES:
            return (raw.decode(),)
        value = json.loads(json.dumps(decode_body(raw, encoding), allow_nan=False))
        return (value,) if encode_body(value) == (raw, encoding) else None
    except (BodyError, ValueError, TypeError, RecursionError):
        return None


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def from_line(text: bytes) -> Carried:
    """Return what a line of JSON says; ValueError says what is wrong with it."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError("it is no JSON object")
    encoding = fields.get("encoding")
    if "body" in fields and "body_base64" in fields:
        raise ValueError("it has `body` and `body_base64`")
    if "body" in fields:
        body = fields["body"]
        if encoding == "bytes":
            if not isinstance(body, str):
                raise ValueError("`body` is no text, and `encoding` says that it is bytes")
            body = body.encode()
        elif encoding not in (None, "msgpack"):
            raise ValueError(f"`encoding` is {encoding!r}; it must be bytes or msgpack")
    elif "body_base64" in fields:
        body = Encoded(_bytes_of(fields, "body_base64"), _encoding_of(encoding))
    else:
        raise ValueError("it has neither `body` nor `body_base64`")
    headers = fields.get("headers")
    if "headers_base64" in fields:
        headers = _headers_of(_bytes_of(fields, "headers_base64"))
    return _carried(body, headers, fields)


def from_map(fields: Any) -> Carried:
    """Return what a msgpack map says; ValueError says what is wrong with it."""
    if not isinstance(fields, dict):
        raise ValueError("it is no map")
    body = fields.get("body")
    if not isinstance(body, bytes):
        raise ValueError("`body` is not there, or no bin")
    headers = fields.get("headers")
    if isinstance(headers, bytes):
        headers = _headers_of(headers)
    return _carried(Encoded(body, _encoding_of(fields.get("encoding"))), headers, fields)


def _carried(body: Any, headers: Any, fields: Mapping[str, Any]) -> Carried:
    key = fields.get("key") or None
    if key is not None and not isinstance(key, str):
        raise ValueError("`key` is no text")
    try:
        encode_body(body) if not isinstance(body, Encoded) else None
        encode_headers(headers)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return Carried(
        body, headers, key,
        _whole(fields, "delay_ms", limits.MAX_DELAY_MS) or 0,
        _whole(fields, "ready_unix_ms", 2**53) or 0,
        _whole(fields, "max_attempts", 2**31),
        _whole(fields, "lease_ms", limits.MAX_LEASE_MS),
        _whole(fields, "priority", limits.MAX_PRIORITY) or 0,
        _whole(fields, "ttl_ms", limits.MAX_DELAY_MS) or 0,
        _whole(fields, "expires_unix_ms", 2**53) or 0,
        _text(fields, "after"),
        frozenset(map(str, fields.keys() - TAKEN)),
    )  # fmt: skip


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name) or ""
    if not isinstance(value, str):
        raise ValueError(f"`{name}` is no text")
    return value


def _whole(fields: Mapping[str, Any], name: str, most: int) -> int | None:
    value = fields.get(name)
    if value is not None and (type(value) is not int or not 0 <= value <= most):
        raise ValueError(f"`{name}` is {value!r}; it must be a whole number from 0 to {most}")
    return value


def _encoding_of(value: Any) -> int:
    if value is None:
        return wire.ENCODING_BYTES
    if isinstance(value, str) and value in ENCODINGS:
        return ENCODINGS[value]
    if type(value) is int and value in ENCODINGS.values():
        return value
    raise ValueError(f"`encoding` is {value!r}; it must be bytes or msgpack")


def _bytes_of(fields: Mapping[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(fields[name], validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError(f"`{name}` is no base64: {error}") from error


def _headers_of(raw: bytes) -> dict[str, Any]:
    try:
        return decode_headers(raw)
    except BodyError as error:
        raise ValueError(f"the headers are no map: {error}") from error
