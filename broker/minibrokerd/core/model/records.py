"""The record table: what the core writes to the log, one type for each kind of outcome.

Meta fields are msgpack arrays in the order below. A later version may append fields with defaults; it may
not move or remove one. Type 1 belongs to the log itself (log/format.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from minibrokerd.log.seam import Record


class Meta(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=False):
    """Base of all record metas: packed as arrays, so that a field costs no name on disk."""


class QueueMeta(Meta, frozen=True):
    """A queue exists under this number (never reused), with these settings."""

    number: int
    name: str
    home: int  # number of the queue whose messages it holds: its own, or its source's for a DLQ
    settings: dict[str, int | str]
    chosen: list[str] | None = None  # those of them that somebody set or declared


class ReserveMeta(Meta, frozen=True):
    """Sequences of the queue below `until` may be in use; a start goes on there. Of queue 0: queue numbers."""

    queue: int
    until: int


class PublishMeta(Meta, frozen=True):
    """Messages were published; the tail is the frame from its columns on, as it came.

    `targets` are (queue, first sequence); one today. `ready_at_ms` is log time without the delay. From `session`
    to `size` stands the outcome of the frame, as in FrameMeta: a record of its own would cost a lone publish 10 us
    more. Where it is not all of its frame, `session` is 0. Behind it are terms of the messages, which go before
    the settings of the queue; 0: there are none.
    """

    targets: list[tuple[int, int]]
    count: int
    unix_ms: int
    ready_at_ms: int
    epoch: int
    durability: int
    delay_ms: int
    key: str
    encoding: int
    columns: list[str]
    session: int
    sequence: int
    answered_below: int
    checksum: int
    size: int
    own_max_attempts: int = 0
    own_lease_ms: int = 0
    own_priority: int = 0
    own_ttl_ms: int = 0


class BeginMeta(Meta, frozen=True):
    """`count` consecutive messages are begun under a token; the lease ends `lease_ms` after `unix_ms`.

    `request` is that of the receive whose answer they are, until its client is known to have it.
    """

    queue: int
    token: int
    session: int
    origin: int
    first: int
    count: int
    lease_ms: int
    unix_ms: int
    request: int | None = None


class ExtendMeta(BeginMeta, frozen=True):
    """As BEGIN, for messages that are begun already: the deadline is new, no attempt is counted."""


class AckMeta(Meta, frozen=True):
    """Messages ended; the tail is a run column.

    The rest is the frame's outcome, as in PublishMeta, where the ack was all of the frame and nothing was lost;
    else `session` is 0.
    """

    queue: int
    session: int
    sequence: int
    answered_below: int
    checksum: int
    unix_ms: int
    size: int


class AttemptMeta(Meta, frozen=True):
    """One attempt in the history of a message."""

    token: int
    started_unix_ms: int
    ended_unix_ms: int
    client: str
    cause: str
    error_class: str
    error_text: str


class ReturnMeta(Meta, frozen=True):
    """A message waits again in its queue, from `ready_at_ms` (log time), `delay_ms` after `unix_ms`."""

    queue: int
    origin: int
    sequence: int
    token: int  # the delivery that ended; later settlements under it, or under an earlier one, are lost
    ready_at_ms: int
    delay_ms: int
    unix_ms: int
    attempts: tuple[int, int, int]  # failed, expired, worker_lost
    releases: int
    marked: bool
    entry: AttemptMeta | None
    dead: bool = False  # it waits for room in the DLQ, and is not handed out again
    count: int = 1  # consecutive messages of which all of this holds, from `sequence` on


class MoveMeta(Meta, frozen=True):
    """A message is in another queue now: dead-lettered, or redriven (attempts reset)."""

    queue: int
    target: int
    origin: int
    sequence: int
    token: int
    ready_at_ms: int
    attempts: tuple[int, int, int]
    redriven: int
    entry: AttemptMeta | None
    unix_ms: int


class PurgeMeta(Meta, frozen=True):
    """Every message that the queue held at this point ended."""

    queue: int


class DropMeta(Meta, frozen=True):
    """The queue ended, with every message that it held at this point; its number is never used again."""

    queue: int


class FrameMeta(Meta, frozen=True):
    """The outcome of a sequenced frame of settlements; those of the session below `answered_below` are forgotten.

    The tail holds the run column of the answer (settlements that were lost).
    """

    session: int
    sequence: int
    answered_below: int
    checksum: int
    unix_ms: int
    size: int
    results: list[dict[str, int | str]]


class CopyMeta(Meta, frozen=True):
    """The whole state of one message, written again; replay of a known id replaces its place.

    The tail is a publish tail with this one message. `wait_ms` is what was left at `unix_ms` of a delay, or of
    the lease that runs under `lease_token` (0: none). `token` is the highest that ended on the message.
    """

    queue: int
    origin: int
    sequence: int
    publish_unix_ms: int
    epoch: int
    durability: int
    encoding: int
    key: str
    token: int
    ready_at_ms: int
    wait_ms: int
    unix_ms: int
    attempts: tuple[int, int, int]
    releases: int
    marked: bool
    redriven: int
    history: list[AttemptMeta]
    attempts_dropped: int
    lease_token: int
    session: int
    lease_ms: int
    started_unix_ms: int
    request: int | None = None  # as in BeginMeta
    dead: bool = False  # as in ReturnMeta
    own_max_attempts: int = 0  # as in PublishMeta
    own_lease_ms: int = 0
    own_priority: int = 0
    unique_key: str = ""
    own_ttl_ms: int = 0


class RunMeta(Meta, frozen=True):
    """What COPYRUN, COPYPART and COPYSOME begin with: messages of one publish, and their fields in its record.

    `wait_ms` is what was left of a delay at `wrote_unix_ms` (0: not said; the delay counts from the publish).
    """

    queue: int
    first: int
    count: int
    unix_ms: int
    ready_at_ms: int
    epoch: int
    durability: int
    delay_ms: int
    key: str
    encoding: int
    wait_ms: int = 0
    wrote_unix_ms: int = 0


class CopyRunMeta(RunMeta, frozen=True):
    """Consecutive messages without a history, written again; replay of known ids replaces their places.

    The tail is a publish tail of these messages.
    """

    own_max_attempts: int = 0  # as in PublishMeta
    own_lease_ms: int = 0
    own_priority: int = 0
    own_ttl_ms: int = 0


class CopyPartMeta(RunMeta, frozen=True):
    """As COPYRUN, for messages of one publish whose keys, delays or encodings differ.

    `columns` names what stands in the columns of the tail, as in PUBLISH.
    """

    columns: list[str] = []
    own_max_attempts: int = 0  # as in PublishMeta
    own_lease_ms: int = 0
    own_priority: int = 0
    own_ttl_ms: int = 0


class CopySomeMeta(RunMeta, frozen=True):
    """As COPYPART, for some messages of one publish: of those between them it says nothing.

    `living` has a bit for each from `first` on, the lowest of the first byte for that one; the others have no
    bytes in the tail.
    """

    columns: list[str] = []
    living: bytes = b""
    own_max_attempts: int = 0  # as in PublishMeta
    own_lease_ms: int = 0
    own_priority: int = 0
    own_ttl_ms: int = 0


class DamagedMeta(Meta, frozen=True):
    """Messages were set aside: their record, which stood at this place, is not as it was written."""

    queue: int
    first: int
    count: int
    segment: int
    offset: int
    unix_ms: int


class EndMeta(Meta, frozen=True):
    """A session ended: its outcomes below `answered_below` are forgotten. Only read: STATE says it today.

    `silent`: its client did not say so, and may still ask. While this record lives, it is told that they are.
    """

    session: int
    answered_below: int
    silent: bool


class StateMeta(Meta, frozen=True):
    """An entry of what is kept beside messages (core/model/kept.py); the last one of its kind and key stands.

    `value` is None where it ended. It is over at `expires_unix_ms` (0: not by time).
    """

    kind: int
    key: tuple[int | str, ...]
    value: tuple[int | bytes, ...] | None
    expires_unix_ms: int


RECORD_TYPES: Final[Mapping[int, type[Meta]]] = {
    2: QueueMeta,
    3: ReserveMeta,
    4: PublishMeta,
    5: BeginMeta,
    6: ExtendMeta,
    7: AckMeta,
    8: ReturnMeta,
    9: MoveMeta,
    10: PurgeMeta,
    11: FrameMeta,
    12: CopyMeta,
    13: DropMeta,
    14: CopyRunMeta,
    15: DamagedMeta,
    16: EndMeta,
    17: CopyPartMeta,
    18: StateMeta,
    19: CopySomeMeta,
}
TYPE_OF: Final[Mapping[type[Meta], int]] = {meta: number for number, meta in RECORD_TYPES.items()}

encode: Final = msgspec.msgpack.Encoder().encode
_DECODERS: Final = {number: msgspec.msgpack.Decoder(meta) for number, meta in RECORD_TYPES.items()}


def record(meta: Meta, tail: bytes | memoryview = b"") -> Record:
    """Return `meta` as a record for the log."""
    return Record(TYPE_OF[type(meta)], encode(meta), tail, None, meta)


def decode(record: Record) -> Meta:
    """Return the meta of a record read from the log.

    Raises:
        UnknownRecord: the type or the fields are not of this version; nothing may be guessed.
    """
    decoder = _DECODERS.get(record.type)
    if decoder is None:
        raise UnknownRecord(f"a record of type {record.type} was written by a newer version")
    try:
        return decoder.decode(record.meta)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the second is none of the first
        raise UnknownRecord(f"a record of type {record.type} cannot be read: {error}") from error


class UnknownRecord(Exception):
    """A record that this version cannot read; the server refuses to start on it."""
