"""What stands in the entries of a stream: batches, as in a segment, and what the log says of itself.

An append is one batch in the format of `log/format.py`: its header, its records, its padding; what is larger
than an entry goes on in the next ones. The fields of the header that name a segment hold 64 random bits of the run
of the broker that wrote it, its *owner*; the field `synced` is not used. The log's own batches have one record:
who leads (kind SEGMENT, alone under the subject of epochs), from where on the log counts (MARKER: a checkpoint),
or that a broker stopped well (FOOTER).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import msgpack

from minibrokerd.log import format as layout
from minibrokerd.log.format import Header, Kind, Origin
from minibrokerd.log.log_versions import FORMAT_VERSION
from minibrokerd.log.seam import Batch, Place, Record
from minibrokerd.replicated.stream import PART_BYTES, Entry


class BadEntry(Exception):
    """An entry, or several that belong together, hold no batch."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The run of a broker that appends: 64 random bits, and what an operator knows it by."""

    high: int
    low: int
    name: str

    @property
    def bits(self) -> tuple[int, int]:
        """What a header has of it."""
        return self.high, self.low


def run_of(bits: tuple[int, int]) -> str:
    """Return the bits of an owner as words have them."""
    return "".join(f"{each:08x}" for each in bits)


def new_owner(name: str) -> Owner:
    """Return an owner that nobody was before."""
    bits = os.urandom(8)
    return Owner(int.from_bytes(bits[:4], "little"), int.from_bytes(bits[4:], "little"), name)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a batch of the log itself says.

    `log_start` is the sequence of the first entry that counts, `session_key` that of the store, `owner` the name
    of who wrote it.
    """

    format_version: int
    log_start: int
    session_key: bytes
    owner: str

    def record(self) -> Record:
        """Return the record that states this."""
        fields = (
            self.format_version,
            self.log_start,
            self.session_key,
            self.owner,
        )
        return Record(layout.SEGMENT_RECORD, msgpack.packb(fields))


@dataclass(frozen=True, slots=True)
class Whole:
    """One append that was read back: the sequences of its first and last entry, its header, and its records."""

    first: int
    last: int
    size_bytes: int
    header: Header
    records: list[Record]

    @property
    def owner_bits(self) -> tuple[int, int]:
        """Which run of a broker wrote it."""
        return self.header.origin.segment, self.header.origin.generation

    def batch(self, place: Place) -> Batch:
        """Return it as the engine knows it; its first record stands at `place`."""
        header = self.header
        return Batch(header.number, self.records, header.now_ms, header.unix_ms, place)


def encoded(
    records: Sequence[Record], kind: Kind, *, store_id: bytes, owner: Owner, number: int, epoch: int,
    now_ms: int, unix_ms: int,
) -> list[bytes]:  # fmt: skip
    """Return a batch as the parts of one append."""
    body = layout.encode_body(records)
    header = Header(
        Origin(store_id, owner.high, owner.low),
        number,
        0,
        epoch,
        kind,
        body.body_bytes,
        body.record_count,
        body.heads_checksum,
        now_ms,
        unix_ms,
    )
    data = layout.encode_batch(header, body)
    return [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]


class Assembly:
    """Makes batches out of entries that come in their order."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._first = 0
        self._header: Header | None = None
        self._size_bytes = 0

    def add(self, entry: Entry) -> Whole | None:
        """Take the next entry; return the batch that it completes.

        Raises:
            BadEntry: it is not what was appended.
        """
        if self._header is None:
            self._header = layout.decode_header(entry.body, 0)
            if self._header is None:
                raise BadEntry("no batch begins there")
            self._first, self._size_bytes = entry.sequence, 0
        header = self._header
        if entry.is_epoch != (header.kind is Kind.SEGMENT):
            raise BadEntry("it stands under the wrong subject")
        self._pieces.append(entry.body)
        self._size_bytes += len(entry.body)
        if self._size_bytes < header.batch_bytes:
            return None
        data = b"".join(self._pieces)
        self._pieces, self._header = [], None
        records = layout.decode_records(data, 0, header)
        if len(data) != header.batch_bytes or records is None:
            raise BadEntry("its bytes are not as they were written")
        return Whole(self._first, entry.sequence, len(data), header, records)

    @property
    def is_between(self) -> bool:
        """Whether no batch is half there."""
        return self._header is None


def statement_of(whole: Whole) -> Statement:
    """Return what a batch of the log itself says; of a newer format only the version.

    Raises:
        BadEntry: it says nothing that is known.
    """
    try:
        fields = msgpack.unpackb(whole.records[0].meta, use_list=False)
        version = fields[0]
        if version > FORMAT_VERSION:
            return Statement(version, 0, b"", "")
        return Statement(*fields)
    except (ValueError, TypeError, IndexError) as error:
        raise BadEntry("it says nothing that is known") from error
