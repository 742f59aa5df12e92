"""Frames that no honest client sends, in one table: what they are, and what must become of them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
from hand import bin_, frame, part, prefixed, raw

HELLO = part("hello", protocol=1)
MAX_FRAME = 16 * 1024 * 1024


def sequenced(*parts: dict[str, object], **fields: Any) -> bytes:
    """Return a frame under the first sequence."""
    return frame(*parts, sequence=1, answered_below=1, **fields)


def publish(
    blob: bytes = b"x", lengths: bytes | None = None, columns: bytes = b"", **fields: object
) -> bytes:
    """Return a publish of one message, with what `fields` change in its part."""
    if lengths is None:
        lengths = struct.pack("<II", 0, len(blob))
    body = {"op": "publish", "queue": "q", "count": 1, **fields}
    return sequenced(body, columns=columns, lengths=lengths, blob=blob)


def ack(
    runs: list[tuple[int, int, int, int]], count: int | None = None, more: bytes = b""
) -> bytes:
    """Return an ack of these runs, said to be `count`."""
    column = b"".join(struct.pack("<QIQI", *run) for run in runs) + more
    stated = len(runs) if count is None else count
    return sequenced(part("ack", queue="q", runs=stated), columns=column)


def nack(runs: int, classes: bytes, texts: bytes) -> bytes:
    """Return a nack with these error columns."""
    column = struct.pack("<QIQI", 1, 1, 0, 1) * runs
    return sequenced(part("nack", queue="q", runs=runs), columns=column + classes + texts)


def header_with(value: bytes) -> bytes:
    """Return a frame whose header has one more field, with this msgpack value."""
    known = msgpack.packb({"parts": [part("ping")], "request": 1})
    return raw(b"\x83" + known[1:] + b"\xa5extra" + value)


def parts_as(value: bytes) -> bytes:
    """Return a frame whose parts are this msgpack value."""
    return raw(b"\x82\xa5parts" + value + b"\xa7request\x01")


def field_as(value: bytes) -> bytes:
    """Return a frame with this msgpack value where the name of a queue belongs."""
    head = b"\x82\xa2op\xaaqueue_show\xa5queue"
    return parts_as(b"\x91" + head + value)


def nested(head: bytes, depth: int) -> bytes:
    """Return a container in a container, each claiming what its head says."""
    return head * depth


HUGE_ARRAY = b"\xdd\xff\xff\xff\xff"
HUGE_MAP = b"\xdf\xff\xff\xff\xff"
HUGE_EXT = b"\xc9\xff\xff\xff\xff\x01"
HUGE_STR = b"\xdb\xff\xff\xff\xff"
HUGE_BIN = b"\xc6\xff\xff\xff\xff"
SOME_ARRAY = b"\xdc\x3f\xff"  # claims as many elements as a header may have bytes
SOME_MAP = b"\x81\xa1a"

# Each is one frame on a connection that has logged in; all of them lose the state of the stream.
CLOSED: Mapping[str, Callable[[], bytes]] = {
    "length 0": lambda: prefixed(b""),
    "length 1": lambda: prefixed(b"\x94"),
    "length max + 1": lambda: (MAX_FRAME + 1).to_bytes(4, "big"),
    "length 2^31": lambda: (2**31).to_bytes(4, "big"),
    "length 2^32 - 1": lambda: (2**32 - 1).to_bytes(4, "big"),
    "length max, zeros": lambda: prefixed(bytes(MAX_FRAME)),
    "length max, nested arrays": lambda: prefixed(nested(b"\xdd\x00\xff\xff\xff", MAX_FRAME // 5)),
    "length max, lengths wrong": lambda: publish(bytes(MAX_FRAME - 200), struct.pack("<II", 0, 1)),
    "length max, a key column": lambda: columned(
        struct.pack("<I", MAX_FRAME - 300) + bytes(MAX_FRAME - 300), "key"
    ),
    "length max, an ack with a blob": lambda: sequenced(
        part("ack", queue="q", runs=0), blob=bytes(MAX_FRAME - 200)
    ),
    "payload: no array": lambda: prefixed(b"\xc0"),
    "payload: array of 3": lambda: prefixed(b"\x93" + b"\xc4\x00" * 3),
    "payload: array of 5": lambda: prefixed(b"\x95" + b"\xc4\x00" * 5),
    "payload: longer form of the array": lambda: prefixed(b"\xdc\x00\x04" + publish()[5:]),
    "payload: str for bin": lambda: prefixed(b"\x94\xa1a" + b"\xc4\x00" * 3),
    "payload: ext for bin": lambda: prefixed(b"\x94\xc7\x01\x05a" + b"\xc4\x00" * 3),
    "payload: a bin claims 4 GiB": lambda: prefixed(b"\x94" + HUGE_BIN),
    "payload: array of 2^32": lambda: prefixed(HUGE_ARRAY),
    "payload: bytes behind it": lambda: prefixed(frame(part("ping"))[4:] + b"x"),
    "payload: cut short": lambda: prefixed(frame(part("ping"))[4:-1]),
    "header: empty": lambda: raw(b""),
    "header: no map": lambda: raw(msgpack.packb([1, 2, 3])),
    "header: an int": lambda: raw(b"\x01"),
    "header: a map of 2^32": lambda: raw(HUGE_MAP),
    "header: 16 KiB and 1": lambda: raw(bytes(16 * 1024 + 1)),
    "header: 8 MiB": lambda: raw(bytes(8 * 1024 * 1024)),
    "header: bytes behind it": lambda: raw(msgpack.packb({"parts": [part("ping")]}) + b"\xc0"),
    "header: a key is no string": lambda: raw(msgpack.packb({1: 1, "parts": [part("ping")]})),
    "header: bad UTF-8 in a key": lambda: raw(b"\x81\xa2\xff\xfe\x01"),
    "header: without parts": lambda: raw(b"\x81\xa7request\x01"),
    "header: parts twice, the last wrong": lambda: raw(
        b"\x82\xa5parts\x91\x81\xa2op\xa4ping\xa5parts\x01"
    ),
    "header: unknown field": lambda: header_with(b"\x01"),
    "header: unknown field, nested arrays": lambda: header_with(nested(SOME_ARRAY, 5_000)),
    "header: unknown field, nested maps": lambda: header_with(nested(SOME_MAP, 5_000)),
    "header: a long unknown name": lambda: raw(
        b"\x82" + msgpack.packb("x" * 16_000) + b"\x01" + b"\xa5parts\x90"
    ),
    "header: sequence 0": lambda: frame(part("ping"), sequence=0),
    "header: sequence 2^64 - 1": lambda: frame(part("ack", queue="q", runs=0), sequence=2**64 - 1),
    "header: sequence of a kind": lambda: frame(part("ping"), sequence="1"),
    "header: request 2^32": lambda: frame(part("ping"), request=2**32),
    "header: request -1": lambda: frame(part("ping"), request=-1),
    "header: request NaN": lambda: frame(part("ping"), request=float("nan")),
    "parts: none": lambda: parts_as(b"\x90"),
    "parts: a map": lambda: parts_as(b"\x80"),
    "parts: 65": lambda: frame(*[part("begin", queue="q", runs=0)] * 65),
    "parts: an array of 2^32": lambda: parts_as(HUGE_ARRAY),
    "parts: nested arrays": lambda: parts_as(nested(SOME_ARRAY, 5_000)),
    "parts: nested arrays of one": lambda: parts_as(nested(b"\x91", 16_000)),
    "parts: nested arrays of 2^32": lambda: parts_as(nested(HUGE_ARRAY, 3_000)),
    "parts: nested maps": lambda: parts_as(b"\x91" + nested(SOME_MAP, 5_000)),
    "parts: nested maps of 2^32": lambda: parts_as(b"\x91" + nested(HUGE_MAP + b"\xa1a", 2_000)),
    "parts: ext": lambda: parts_as(b"\x91\xc7\x04\x01abcd"),
    "parts: ext of 4 GiB": lambda: parts_as(HUGE_EXT),
    "parts: nested ext": lambda: parts_as(b"\x91" + b"\xc9\x00\x00\x3f\x00\x01" * 2_000),
    "parts: a timestamp": lambda: parts_as(b"\x91\xd6\xff\x00\x00\x00\x00"),
    "parts: no op": lambda: frame(part("ping") | {"op": None}),
    "parts: unknown op": lambda: frame(part("flush")),
    "parts: unknown field": lambda: frame(part("ping", text="hi"), request=1),
    "parts: a field is missing": lambda: frame(part("queue_show"), request=1),
    "field: nested arrays": lambda: field_as(nested(SOME_ARRAY, 5_000)),
    "field: nested maps": lambda: field_as(nested(SOME_MAP, 5_000)),
    "field: a str of 4 GiB": lambda: field_as(HUGE_STR),
    "field: bytes for str": lambda: field_as(b"\xc4\x01q"),
    "field: bad UTF-8": lambda: field_as(b"\xa2\xc3\x28"),
    "field: a surrogate": lambda: field_as(b"\xa3\xed\xa0\x80"),
    "field: a str too long": lambda: field_as(msgpack.packb("q" * 16_000)),
    "field: NaN for int": lambda: publish(count=float("nan")),
    "field: float for int": lambda: publish(count=1.0),
    "field: bool for int": lambda: publish(count=True),
    "field: negative": lambda: publish(delay_ms=-1),
    "field: 2^64 - 1": lambda: publish(delay_ms=2**64 - 1),
    "field: settings with a float": lambda: frame(
        part("queue_set", queue="q", settings={"lease_ms": 1.5}), request=1
    ),
    "field: settings nested": lambda: frame(
        part("queue_set", queue="q", settings={"lease_ms": {}}), request=1
    ),
    "field: 65 settings": lambda: frame(
        part("queue_set", queue="q", settings={str(number): 1 for number in range(65)}), request=1
    ),
    "publish: no sequence": lambda: frame(
        part("publish", queue="q", count=1), lengths=bytes(8), request=1
    ),
    "publish: count 0": lambda: publish(b"", b"", count=0),
    "publish: count 1,001": lambda: publish(b"", bytes(8 * 1_001), count=1_001),
    "publish: lengths too short": lambda: publish(lengths=b"\x00\x00\x00"),
    "publish: lengths too long": lambda: publish(lengths=bytes(16)),
    "publish: lengths below the blob": lambda: publish(lengths=bytes(8)),
    "publish: lengths above the blob": lambda: publish(lengths=struct.pack("<II", 0, 2)),
    "publish: lengths of 4 GiB": lambda: publish(lengths=b"\xff" * 8),
    "publish: lengths that wrap round": lambda: publish(
        b"", struct.pack("<II", 2**31, 2**31), count=1
    ),
    "publish: unknown column": lambda: columned(b"x", "abc"),
    "publish: column without a name": lambda: publish(columns=b"x"),
    "publish: name without a column": lambda: columned(b"", "delay_ms"),
    "publish: column one byte short": lambda: columned(bytes(7), "delay_ms"),
    "publish: column one byte long": lambda: columned(bytes(9), "delay_ms"),
    "publish: column twice": lambda: columned(bytes(16), "delay_ms", "delay_ms"),
    "publish: 9 columns": lambda: columned(b"", *["key"] * 9),
    "publish: delay above 2^53": lambda: columned(b"\xff" * 8, "delay_ms"),
    "publish: encoding 2": lambda: columned(b"\x02", "encoding"),
    "publish: key column claims 4 GiB": lambda: columned(b"\xff\xff\xff\xff", "key"),
    "publish: key of 256 bytes": lambda: columned(struct.pack("<I", 256) + b"k" * 256, "key"),
    "publish: key is not UTF-8": lambda: columned(struct.pack("<I", 1) + b"\xff", "key"),
    "publish: header key of 510 bytes": lambda: publish(key="\u00e9" * 255),
    "publish: beside a nack": lambda: sequenced(
        part("publish", queue="q", count=1),
        part("nack", queue="q", runs=0),
        lengths=struct.pack("<II", 0, 1),
        blob=b"x",
    ),
    "publish: behind an ack": lambda: sequenced(
        part("ack", queue="q", runs=0), part("publish", queue="q", count=1)
    ),
    "publish: two": lambda: sequenced(*[part("publish", queue="q", count=1)] * 2, lengths=bytes(8)),
    "runs: too few": lambda: ack([], count=1),
    "runs: too many": lambda: ack([(1, 1, 0, 1)] * 2, count=1),
    "runs: one byte too many": lambda: ack([(1, 1, 0, 1)], more=b"x"),
    "runs: 10,000 stated, none there": lambda: ack([], count=10_000),
    "runs: 10,001": lambda: ack([(1, 1, 0, 1)] * 10_001),
    "runs: one names 2^32 - 1 messages": lambda: ack([(1, 1, 0, 2**32 - 1)]),
    "runs: 10,000 name 2^32 - 1 each": lambda: ack([(1, 1, 0, 2**32 - 1)] * 10_000),
    "runs: beyond the last sequence": lambda: ack([(1, 1, 2**64 - 1, 2)]),
    "runs: 64 parts of 10,000": lambda: sequenced(
        *[part("ack", queue="q", runs=10_000)] * 64,
        columns=struct.pack("<QIQI", 2**60, 1, 2**60, 0) * 640_000,
    ),
    "runs: names no message": lambda: ack([(1, 1, 0, 0)]),
    "errors: no columns": lambda: nack(1, b"", b""),
    "errors: 10,000 runs and no columns": lambda: nack(10_000, b"", b""),
    "errors: class claims 4 GiB": lambda: nack(1, b"\xff\xff\xff\xff", bytes(4)),
    "errors: text claims 4 GiB": lambda: nack(1, bytes(4), b"\xff\xff\xff\xff"),
    "errors: a byte behind": lambda: nack(1, bytes(4), bytes(5)),
    "settle: without sequence or request": lambda: frame(part("ack", queue="q", runs=0)),
    "settle: beside a ping": lambda: sequenced(part("ack", queue="q", runs=0), part("ping")),
    "settle: answered_below above the sequence": lambda: frame(
        part("ack", queue="q", runs=0), sequence=1, answered_below=2
    ),
    "settle: far ahead": lambda: frame(part("ack", queue="q", runs=0), sequence=1_025),
    "request: two parts": lambda: frame(part("ping"), part("ping"), request=1),
    "request: no number": lambda: frame(part("stats")),
    "request: with columns": lambda: frame(part("stats"), columns=b"x", request=1),
    "request: with a sequence": lambda: sequenced(part("stats")),
    "phase: hello again": lambda: frame(HELLO),
    "phase: attach on an open connection": lambda: frame(
        part("attach", protocol=1, session=1, secret=b"")
    ),
}


def columned(columns: bytes, *names: str) -> bytes:
    """Return a publish of one message that names these columns."""
    body = part("publish", queue="q", count=1, columns=list(names))
    return sequenced(body, columns=columns, lengths=struct.pack("<II", 0, 1), blob=b"x")


# Not hostile in form, but the most that a frame may ask for; all of them get an answer of their own.
COSTLY: Mapping[str, Callable[[], bytes]] = {
    "10,000 lost runs": lambda: ack([(1, 1, 2 * number, 1) for number in range(10_000)]),
    "10,000 lost messages in one run": lambda: ack([(1, 1, 0, 10_000)]),
    "10,000 errors": lambda: nack(10_000, bytes(40_000), bytes(40_000)),
    "10,000 errors of 1,600 bytes": lambda: nack(
        10_000,
        struct.pack("<I", 400) * 10_000 + b"c" * 4_000_000,
        struct.pack("<I", 1_200) * 10_000 + b"t" * 12_000_000,
    ),
    "an error of 16 MiB": lambda: nack(
        1, bytes(4), struct.pack("<I", MAX_FRAME - 300) + bytes(MAX_FRAME - 300)
    ),
    "1,000 keys": lambda: sequenced(
        part("publish", queue="q", count=1_000, columns=["key"]),
        columns=struct.pack("<I", 255) * 1_000 + b"k" * 255_000,
        lengths=bytes(8_000),
    ),
    "64 parts": lambda: sequenced(*[part("ack", queue="q", runs=0)] * 64),
}

# The frame alone is refused and the connection goes on: its code. The queue "q" is there.
REFUSED: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "a message above 1 MiB": ("too_large", lambda: publish(bytes(1024 * 1024 + 1))),
    "a frame of one message": ("too_large", lambda: publish(bytes(MAX_FRAME - 300))),
    "an unknown queue": (
        "unknown_queue",
        lambda: frame(part("purge", queue="other"), request=1),
    ),
    "a queue without a name": ("bad_name", lambda: publish(queue="")),
    "a queue with a path for a name": ("bad_name", lambda: publish(queue="../etc/passwd")),
    "a queue with a line feed": ("bad_name", lambda: publish(queue="a\n")),
    "a queue with a NUL": ("bad_name", lambda: publish(queue="a\x00")),
    "a queue of digits of another script": ("bad_name", lambda: publish(queue="\u0661")),
    "a queue of 125 characters": ("bad_name", lambda: publish(queue="q" * 125)),
    "a dead-letter queue": ("bad_name", lambda: publish(queue="q.dlq")),
    "an unknown setting": (
        "bad_value",
        lambda: frame(part("queue_set", queue="q", settings={"colour": 1}), request=1),
    ),
    "a setting out of range": (
        "bad_value",
        lambda: frame(part("queue_set", queue="q", settings={"lease_ms": 2**63}), request=1),
    ),
    "a setting of another type": (
        "bad_value",
        lambda: frame(part("queue_set", queue="q", settings={"lease_ms": "1"}), request=1),
    ),
}

# Each is the first frame of a connection; all of them end it.
BEFORE_LOGIN: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "4 KiB and 1": ("protocol_error", lambda: (4_097).to_bytes(4, "big")),
    "length 2^32 - 1": ("protocol_error", lambda: b"\xff" * 4),
    "nested arrays": ("protocol_error", lambda: parts_as(nested(SOME_ARRAY, 1_300))),
    "a publish": ("protocol_error", publish),
    "a ping": ("protocol_error", lambda: frame(part("ping"), request=1)),
    "two hellos in a frame": ("protocol_error", lambda: frame(HELLO, HELLO)),
    "a hello and a ping in a frame": ("protocol_error", lambda: frame(HELLO, part("ping"))),
    "a hello with a sequence": ("protocol_error", lambda: frame(HELLO, sequence=1)),
    "a hello with columns": ("protocol_error", lambda: frame(HELLO, columns=bytes(24))),
    "a hello with a blob": ("protocol_error", lambda: frame(HELLO, blob=b"x")),
    "a client name of 202 bytes": (
        "protocol_error",
        lambda: frame(HELLO | {"client": "\u00e9" * 101}),
    ),
    "version 0": ("login_refused", lambda: frame(part("hello", protocol=0))),
    "version 2": ("login_refused", lambda: frame(part("hello", protocol=2))),
    "version 65,536": ("protocol_error", lambda: frame(part("hello", protocol=65_536))),
    "a resume with a bad secret": ("login_refused", lambda: resume(bytes(32))),
    "a resume with no secret": ("login_refused", lambda: resume(b"")),
    "a resume with a long secret": ("protocol_error", lambda: resume(bytes(65))),
    "an attach with a bad secret": (
        "login_refused",
        lambda: frame(part("attach", protocol=1, session=1, secret=bytes(32))),
    ),
    "a resume with too few runs": ("protocol_error", lambda: resume(bytes(32), runs=1)),
    "a resume with half a run": ("protocol_error", lambda: resume(bytes(32), bytes(12))),
}


def resume(secret: bytes, columns: bytes = b"", runs: int = 0, session: int = 1) -> bytes:
    """Return a resume."""
    fields = {"protocol": 1, "session": session, "secret": secret, "runs": runs}
    return frame(part("resume", **fields), columns=columns)


__all__ = ["BEFORE_LOGIN", "CLOSED", "REFUSED", "bin_", "publish", "resume"]
