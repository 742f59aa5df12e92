"""Bits that turn: on the disk, until somebody restores the file, or on the way from it, once.

The checker is told of every message whose record has such a bit (or could not be read): the broker may set these
aside, and no others. A bit of a segment that a start reads as a whole must be told as damage.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from random import Random

from minibroker.contract.limits import MAX_OFFSET
from minibrokerd.core.model.records import CopyMeta, PublishMeta, RunMeta, decode
from minibrokerd.log import format as layout
from minibrokerd.log.format import Kind
from minibrokerd.log.seam import RECORD_HEAD_BYTES
from support.simulated_disk import File

Id = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Turned:
    """One bit of a file that is not what was written."""

    file: File
    at: int
    mask: int
    spoilt: int  # the byte as it is
    unreadable: bool  # a read of it fails


class Rot:
    """The turned bits of one disk; `suspects` are the messages whose records have one."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.turned: dict[str, Turned] = {}  # by the name of a segment, or an index
        self.suspects: set[Id] = set()
        # Of each retained log, by its number, the offsets that a file with such a bit may have: from, and below.
        self.spoilt: dict[int, list[tuple[int, int]]] = {}

    def turn(self, name: str, file: File, *, unreadable: bool) -> bool:
        """Turn one bit of a file that has none, or have its sector fail; True: done."""
        end = len(file.data.rstrip(b"\0"))
        if name in self.turned or not end:
            return False
        at, mask = self.random.randrange(end), 1 << self.random.randrange(8)
        self.suspect(file, at)
        if not unreadable:
            _turn(file, at, mask)
        self.turned[name] = Turned(file, at, mask, file.data[at], unreadable)
        return True

    def turn_retained(self, name: str, names: Collection[str], file: File) -> bool:
        """Turn one bit of a segment of a retained log, which stays; `names` are all segments of that log."""
        end = len(file.data)
        if name in self.turned or not end:
            return False
        at, mask = self.random.randrange(end), 1 << self.random.randrange(8)
        _turn(file, at, mask)
        self.turned[name] = Turned(file, at, mask, file.data[at], unreadable=False)
        lows = sorted({int(each.rpartition("/")[2][:20]) for each in names})
        low = int(name.rpartition("/")[2][:20])
        above = [each for each in lows if each > low]
        number = int(name.split("/")[1])
        self.spoilt.setdefault(number, []).append((low, above[0] if above else MAX_OFFSET))
        return True

    def is_spoilt(self, number: int, offset: int) -> bool:
        """Whether an offset of a retained log may have been in a file with such a bit."""
        return any(low <= offset < stop for low, stop in self.spoilt.get(number, ()))

    def hides(self, file: File, offset: int, size_bytes: int) -> bool:
        """Whether a read would need a sector that fails."""
        return any(
            turned.unreadable and turned.file is file and offset <= turned.at < offset + size_bytes
            for turned in self.turned.values()
        )

    def written(self, file: File, offset: int, size_bytes: int) -> None:
        """A sector that is written anew can be read again: a disk puts another one in its place."""
        for name, turned in list(self.turned.items()):
            if turned.unreadable and turned.file is file and 0 <= turned.at - offset < size_bytes:
                del self.turned[name]

    def spoil(self, data: bytes, file: File, offset: int) -> bytes:
        """Turn one bit of what was read from an offset on; the file stays as it is."""
        end = len(data.rstrip(b"\0"))
        if not end:
            return data
        at = self.random.randrange(end)
        self.suspect(file, offset + at)
        spoilt = bytearray(data)
        spoilt[at] ^= 1 << self.random.randrange(8)
        return bytes(spoilt)

    def suspect(self, file: File, at: int) -> None:
        """Note the messages of the record that has a byte."""
        data = bytearray(file.data)
        for turned in self.turned.values():  # as it was written: else the way to the record is lost
            if turned.file is file and not turned.unreadable:
                data[turned.at] ^= turned.mask
        self.suspects.update(ids_at(bytes(data), at))

    def restore(self, entries: dict[str, File]) -> None:
        """Put the files back as they were, as from a copy of them; what was recycled meanwhile has no bit left."""
        for name, turned in self.turned.items():
            there = None if turned.unreadable else entries.get(name)
            if there is not None and there.data[turned.at : turned.at + 1] == bytes(
                [turned.spoilt]
            ):
                _turn(there, turned.at, turned.mask)
        self.turned.clear()


def _turn(file: File, at: int, mask: int) -> None:
    durable = file.durable
    file.data = _with_bit(file.data, at, mask)
    if at < len(durable):
        file.durable = bytes(_with_bit(durable, at, mask))


def _with_bit(data: bytes | bytearray, at: int, mask: int) -> bytearray:
    changed = bytearray(data)
    changed[at] ^= mask
    return changed


def ids_at(data: bytes, at: int) -> Iterator[Id]:
    """Yield the messages of the record that has the byte at this place of a segment."""
    for offset, header in layout.headers(data, at + 1):
        if offset <= at < offset + header.batch_bytes and header.kind is Kind.DATA:
            yield from _ids_in_batch(data, offset, header, at)


def _ids_in_batch(data: bytes, offset: int, header: layout.Header, at: int) -> Iterator[Id]:
    start = offset + layout.BATCH_HEADER_BYTES
    for _ in range(header.record_count):
        stop = start + layout.record_size(data[start : start + RECORD_HEAD_BYTES])
        if start <= at < stop:
            record = layout.decode_record(data, start)
            meta = decode(record) if record is not None else None
            yield from _ids_of(meta)
        start = stop


def _ids_of(meta: object) -> Iterator[Id]:
    if isinstance(meta, PublishMeta):
        for origin, first in meta.targets:
            yield from ((origin, first + at) for at in range(meta.count))
    elif isinstance(meta, RunMeta):
        yield from ((meta.queue, meta.first + at) for at in range(meta.count))
    elif isinstance(meta, CopyMeta):
        yield meta.origin, meta.sequence
