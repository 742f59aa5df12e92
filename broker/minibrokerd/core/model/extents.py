"""Bytes of messages, as the core knows them: things of the shell that are named and handed on, never looked into.

The room `bodies/` has them for a log in segments. They are pure, as the core is: what they are asked is answered
out of memory, at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from minibrokerd.log.seam import Batch, Digested, Record, Tail

# The bytes of each message, headers included, if all are alike; else 0, and where each one starts and the last
# one ends among them all.
Sizes = tuple[int, "array[int] | None"]


class NoChecker(Exception):
    """The library that checks schemas is not installed."""


class BadTail(Exception):
    """The bytes of a record, or of a frame, are not those of so many messages."""


class Extent(Tail, Protocol):
    """The bytes of the messages of one publish, or of some that were written again: one record has them all.

    `refs` counts the messages in memory, of whatever queue, that have their bytes here; the core does that.
    """

    refs: int

    @property
    def size(self) -> int:
        """The bytes of the tail of that record."""
        ...

    @property
    def is_stored(self) -> bool:
        """Whether one record that is safe has all of it: it may leave memory."""
        ...

    def columns(self) -> memoryview:
        """Return the columns that were published with the messages."""
        ...

    def sizes(self, count: int) -> Sizes:
        """Return how long the messages are, of which there should be so many.

        Raises:
            BadTail: there are not, or their bytes are more or less than that.
        """
        ...

    def again(self) -> Extent:
        """Return these messages for a record more: the same bytes, which have another place."""
        ...

    def bodies(self, count: int) -> Iterator[memoryview]:
        """Yield the bodies of the messages, without their headers; `sizes` was asked before."""
        ...

    def part(self, low: int, high: int, start: int, stop: int, columns: bytes = b"") -> Extent:
        """Return the messages with these indexes as an extent of their own; their bytes are `start` to `stop`."""
        ...

    def parts(self, pieces: Sequence[tuple[int, int, int, int]], columns: bytes = b"") -> Extent:
        """As `part`, for ascending pieces; the messages between two of them have no bytes there."""
        ...

    def joined(self, behind: Extent) -> Extent:
        """Return these messages and those of another extent as one, without columns."""
        ...


class Shelf(Protocol):
    """Extents that left memory, one behind the other, as they stand in the log."""

    def joins(self, extent: Extent) -> bool:
        """Whether an extent can be appended to those that are here."""
        ...

    def append(self, extent: Extent) -> None:
        """Add an extent that is stored."""
        ...

    def take(self, place: Any) -> bool:
        """Add the extent whose record stands at a place, if it can be appended; the first one can."""
        ...

    def expect(self, extent: Extent) -> Extent:
        """Add an extent whose record is on its way; return what the record is to have for it."""
        ...

    def absorb(self, behind: Shelf) -> bool:
        """Add all extents of another shelf, if they stand behind these and can be read together with them."""
        ...

    def split(self, index: int, keep: int) -> Shelf:
        """Keep so many extents, and return those from an index on."""
        ...

    def stretch(self, index: int, most_bytes: int) -> int:
        """Return one behind the index of the last extent that is read in one go with this one: so many bytes."""
        ...

    def place(self, index: int) -> Any:
        """Return where an extent stands, for who made the shelf."""
        ...


class Schema(Protocol):
    """What bodies of a queue must fit."""

    def misfit(self, body: memoryview, encoding: int) -> tuple[str, str] | None:
        """Return with which code a body is refused, and where and why it does not fit; None: it fits."""
        ...


class Bodies(Protocol):
    """Makes extents of what is no frame of a client, and shelves. What it calls a place nobody else looks into."""

    @property
    def nothing(self) -> Extent:
        """One message without headers and body."""
        ...

    def extent(self, record: Record, place: Any) -> Extent:
        """Return the bytes that a record brings along, which stands at this place.

        Raises:
            BadTail: they are no tail of a publish.
        """
        ...

    def shelf(self) -> Shelf:
        """Return an empty shelf."""
        ...

    def places(self, batch: Batch) -> Iterator[Any]:
        """Yield where each record of a batch stands that was read."""
        ...

    def shelf_of(self, part: Digested, places: bytes) -> Shelf:
        """Return the extents that a digest names by their places, 4 bytes each."""
        ...

    def place_of(self, part: Digested, place: int) -> Any:
        """Return the place that a digest names, by 4 bytes as a number."""
        ...

    def read(self, place: Any) -> Record:
        """Return the record at a place, during a start."""
        ...

    def schema(self, text: bytes) -> Schema:
        """Return what checks bodies by a JSON Schema.

        Raises:
            ValueError: the text is none, or checking it may take without end.
            NoChecker: nothing here can.
        """
        ...

    def told(self, place: Any) -> tuple[int, int]:
        """Return a place in two numbers that an operator can use."""
        ...
