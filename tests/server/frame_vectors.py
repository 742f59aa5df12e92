"""What each frame of frame_octets.py says: its fields, columns and messages, and how a server answers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from frame_octets import (
    ACK,
    ATTACH,
    BARE_PING,
    BEGIN,
    CANCEL,
    CONSUME,
    EXTEND,
    GOODBYE,
    HELLO,
    MIXED,
    NACK,
    PEEK,
    PING,
    PUBLISH,
    PUBLISH_COLUMNS,
    PUBLISH_SHARED,
    PUBLISH_TERMS,
    PUBLISH_UNIQUE,
    QUEUE_DECLARE,
    QUEUE_SET,
    RECEIVE,
    REDRIVE,
    REJECT,
    RELEASE,
    RESUME,
    STATS,
)

UNIX_MS = 1_700_000_000_000
TOKEN = 0x10000000003  # of the one delivery that is open on the stage; its session is 0x10000000001


@dataclass(frozen=True, slots=True)
class Vector:
    """A frame as bytes, and what must be read in them."""

    octets: bytes
    parts: list[dict[str, Any]]  # with every default
    numbers: tuple[int | None, int | None, int] = (None, None, 1)  # request, sequence, below
    columns: tuple[Any, ...] = ()  # of each part, in the order of the table
    messages: tuple[tuple[bytes, bytes], ...] = ()  # headers, body
    answers: tuple[str, ...] = ()  # of a server with the queue q, whose messages 0 to 3 are held

    @property
    def payload(self) -> bytes:
        """What stands behind the length."""
        return self.octets[4:]

    @property
    def is_login(self) -> bool:
        """Whether it is the first frame of its connection."""
        return self.parts[0]["op"] in ("hello", "resume", "attach")


# A filter of dead messages, left out.
ANY_DEAD: dict[str, Any] = {
    **dict.fromkeys(("cause", "error_class", "error_text", "group", "key", "origin"), ""),
    **dict.fromkeys(("older_ms", "younger_ms"), 0),
}


def run(first: int, count: int, token: int = TOKEN) -> tuple[int, int, int, int]:
    """Return an entry of a run column."""
    return token, 1, first, count


def q(op: str, **fields: object) -> dict[str, Any]:
    """Return a part for the queue q."""
    return {"op": op, "queue": "q", **fields}


SECRET = bytes.fromhex("faea1d384319c7bcfbbb63d4adb60547867ce38a7104dc1723e60eb8b0e06f3d")
LOGIN = {"protocol": 1, "session": 0x10000000001, "secret": SECRET}
SHARED = {
    "delay_ms": 0,
    "key": "",
    "encoding": 0,
    "columns": [],
    "max_attempts": 0,
    "priority": 0,
    "ttl_ms": 0,
    "lease_ms": 0,
    "unique_mode": "",
    "dedupe_window_ms": 0,
    "after": b"",
    "after_step": 0,
    "if_dead": "",
}
ASKED, FIRST, SECOND = (7, None, 1), (None, 1, 1), (None, 2, 2)
NAMES = ["delay_ms", "key", "encoding"]
DELAYS_KEYS_ENCODINGS = ([0, 7, 2**53], ["a", "", "é"], [0, 1, 0])
XYZ = ((b"", b"x"), (b"", b"\x07"), (b"", b"y"))
ERRORS = [("ValueError", "no"), ("", "€")]

CLIENT: Mapping[str, Vector] = {
    "hello": Vector(
        HELLO,
        [{"op": "hello", "protocol": 1, "client": "w", "token": "", "version": ""}],
        answers=("welcome",),
    ),
    "resume": Vector(
        RESUME,
        [{"op": "resume", **LOGIN, "client": "w", "runs": 1, "token": "", "version": ""}],
        columns=([run(0, 2)],),
        answers=("welcome",),
    ),
    "attach": Vector(ATTACH, [{"op": "attach", **LOGIN, "token": ""}], answers=("welcome",)),
    "publish": Vector(
        PUBLISH, [q("publish", count=1) | SHARED], FIRST, ((),), ((b"", b"hi"),), ("confirm",)
    ),
    "publish, terms": Vector(
        PUBLISH_TERMS,
        [q("publish", count=1) | SHARED | {"max_attempts": 3, "lease_ms": 120_000}],
        FIRST,
        ((),),
        ((b"", b"hi"),),
        ("confirm",),
    ),
    "publish, shared fields": Vector(
        PUBLISH_SHARED,
        [q("publish", count=2) | SHARED | {"delay_ms": 5_000, "key": "k", "encoding": 1}],
        SECOND,
        ((),),
        ((b"", b"\x07"), (b"\x81\xa1a\x01", b"\xcc\xff")),
        ("confirm",),
    ),
    "publish, columns": Vector(
        PUBLISH_COLUMNS,
        [q("publish", count=3) | SHARED | {"columns": NAMES}],
        (None, 2, 1),
        (DELAYS_KEYS_ENCODINGS,),
        XYZ,
        ("confirm",),
    ),
    "publish, unique": Vector(
        PUBLISH_UNIQUE,
        [
            q("publish", count=2)
            | SHARED
            | {"unique_mode": "replace", "dedupe_window_ms": 60_000}
            | {"columns": ["unique_key", "dedupe_id"]}
        ],
        FIRST,
        ((["k", ""], ["id", ""]),),
        ((b"", b"hi"), (b"", b"yo")),
        ("confirm",),
    ),
    "begin": Vector(BEGIN, [q("begin", runs=1)], columns=([run(1, 3)],)),
    "ack": Vector(ACK, [q("ack", runs=2)], SECOND, ([run(0, 2), run(3, 1)],), answers=("confirm",)),
    "nack": Vector(
        NACK,
        [q("nack", runs=2, delay_ms=100_000, key_delay_ms=0)],
        (None, 512, 2),
        ([run(0, 1), run(2, 2)], ERRORS),
        answers=("confirm",),
    ),
    "reject": Vector(
        REJECT,
        [q("reject", runs=1)],
        (None, 2, 0),
        ([run(3, 1)], [("E", "")]),
        answers=("confirm",),
    ),
    "release": Vector(
        RELEASE,
        [q("release", runs=1, recalled=0)],
        (2**32 - 1, None, 1),
        ([run(0, 4)],),
        answers=("confirm",),
    ),
    "extend": Vector(
        EXTEND,
        [q("extend", runs=1, lease_ms=60_000)],
        (0, None, 1),
        ([run(2, 1)],),
        answers=("confirm",),
    ),
    "three parts": Vector(
        MIXED,
        [q("begin", runs=1), q("nack", runs=1, delay_ms=None, key_delay_ms=0), q("ack", runs=1)],
        (None, 2, 1),
        ([run(0, 1)], [run(1, 1)], [("E", "t")], [run(2, 2)]),
        answers=("confirm",),
    ),
    "consume": Vector(
        CONSUME,
        [q("consume", consumer=2**32 - 1, prefetch=10_000, lease_ms=43_200_000)],
        ASKED,
        answers=("reply",),
    ),
    "cancel": Vector(CANCEL, [{"op": "cancel", "consumer": 1}], ASKED, answers=("reply",)),
    "receive": Vector(
        RECEIVE,
        [q("receive", count=1_000, wait_ms=3_600_000, lease_ms=10)],
        ASKED,
        answers=("deliver",),
    ),
    "peek": Vector(
        PEEK,
        [q("peek", count=2, skip=1, after=b"", state="", runs=0, order="", unique_key="")],
        ASKED,
        ([],),
        answers=("messages",),
    ),
    "redrive": Vector(
        REDRIVE,
        [{"op": "redrive", "queue": "q.dlq", "runs": 1, "count": 1, **ANY_DEAD}],
        ASKED,
        ([run(4, 1, token=0)],),
        answers=("reply",),
    ),
    "queue_set": Vector(
        QUEUE_SET,
        [
            {
                "op": "queue_set",
                "queue": "other",
                "settings": {"lease_ms": 20_000, "durability": "lazy"},
                "unset": [],
            }
        ],
        ASKED,
        answers=("reply",),
    ),
    "queue_declare": Vector(
        QUEUE_DECLARE,
        [q("queue_declare", settings={"lease_ms": 10}, exclusive=0)],
        ASKED,
        answers=("reply",),
    ),
    "stats": Vector(
        STATS, [{"op": "stats", "queue": "", "after": 0, "count": 0}], ASKED, answers=("reply",)
    ),
    "ping": Vector(PING, [{"op": "ping"}], (200, None, 1), answers=("pong",)),
    "ping without a number": Vector(BARE_PING, [{"op": "ping"}], answers=("pong",)),
    "goodbye": Vector(GOODBYE, [{"op": "goodbye"}]),
}
