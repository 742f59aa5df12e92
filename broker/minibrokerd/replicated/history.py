"""What is known of a log by the entries of it that were read: its store, its epoch, and how long it is.

Entries come in their order, from the oldest on; nothing is asked here. The number of an epoch is counted: an epoch
record states one more than its writer knew of, and one more than the epoch before it is what it has at least, for
its writer may not have read all. Every batch states the epoch that it was written in, which its writer knew well,
so that the count is right behind any batch, whatever was trimmed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from minibrokerd.log.failures import LogMoved, NewerFormat
from minibrokerd.log.format import Kind
from minibrokerd.log.log_versions import FORMAT_VERSION
from minibrokerd.log.seam import BATCH_HEADER_BYTES, Batch, Place
from minibrokerd.replicated.entries import Assembly, BadEntry, Whole, statement_of
from minibrokerd.replicated.failures import DamagedStream, HalfMoved
from minibrokerd.replicated.places import Places
from minibrokerd.replicated.stream import Entry

STRETCH_BYTES: Final = 16 * 1024 * 1024  # what is trimmed at once
# What `log move` calls itself: in its epoch record, until a checkpoint says that all is there; and in the last
# checkpoint of a log that is elsewhere now.
MOVES_IN: Final = "a move from "
MOVED_TO: Final = "moved to "


# Called with the name of a stretch, the byte of it where entries begin, and these, one behind the other.
Keep = Callable[[int, int, Sequence[bytes]], object]


class Stretch(NamedTuple):
    """Entries that are trimmed together: the first one, their bytes, and the newest batch among them."""

    first: int
    size_bytes: int
    upto: int


class Stretches:
    """The length of the log, in pieces of `most_bytes`, about; the last one is still written."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.sealed: deque[Stretch] = deque()
        self.sealed_bytes = 0
        self.first = 1  # of the one that is written
        self.size_bytes = 0
        self.upto = 0  # the newest batch of all

    def add(self, last: int, size_bytes: int, number: int | None) -> None:
        """Note an append: the sequence of its last entry, and the number of a batch of data."""
        self.size_bytes += size_bytes
        if number is not None:
            self.upto = number
        if self.size_bytes >= self._most_bytes:
            self.sealed.append(Stretch(self.first, self.size_bytes, self.upto))
            self.sealed_bytes += self.size_bytes
            self.first, self.size_bytes = last + 1, 0

    def start_at(self, first: int) -> None:
        """Forget the stretches that end before this entry: who led gave them up."""
        while self.sealed and self._end_of_oldest() <= first:
            self.sealed_bytes -= self.sealed.popleft().size_bytes
        if self.sealed and self.sealed[0].first < first:
            self.sealed[0] = self.sealed[0]._replace(first=first)

    def _end_of_oldest(self) -> int:
        return self.sealed[1].first if len(self.sealed) > 1 else self.first

    def give_up(self, upto: int) -> int:
        """Forget the stretches whose batches are `upto` or older; return where the log starts now."""
        while self.sealed and self.sealed[0].upto <= upto:
            self.sealed_bytes -= self.sealed.popleft().size_bytes
        return self.sealed[0].first if self.sealed else self.first


class History:
    """Takes entries, and knows what they came to."""

    def __init__(self, name: str, stretch_bytes: int = STRETCH_BYTES) -> None:
        """`name` is that of the stream, for texts; `stretch_bytes` is what is trimmed at once."""
        self._name = name
        self._stretch_bytes = stretch_bytes
        self.places = Places()
        self.keep: Keep | None = None  # is given what was read or appended, with where it stands
        self._gathered: list[bytes] = []  # what it is given next
        self._gathered_at = (0, 0)
        self.begin_again()

    def begin_again(self) -> None:
        """Know nothing, but where entries stand: what was read may be replayed still."""
        self._assembly = Assembly()
        self._place = Place(0, 0)  # of the first record of the batch that is assembled
        self.owner_bits: tuple[int, int] | None = None  # of the run of a broker that leads
        self.is_begun = False
        self.owner = ""  # of the newest epoch record
        self.read_to = 0  # the sequence of the last entry
        self.head = 0  # the sequence of the first one
        self.log_start = 1  # as the newest checkpoint says
        self.epoch = 0
        self.store_id = b""
        self.session_key = b""
        self.number = 0  # of the newest batch of data
        self.now_ms = 0
        self.is_clean = True
        self.batches = 0
        self.stretches = Stretches(self._stretch_bytes)
        self.is_for_move = False  # whoever reads it moves the log, and takes a part of one
        self.half_of = ""  # what is moved here, and is not all there yet
        self.moved_to = ""

    def begin(self, first: int) -> None:
        """Say which entry is the first one that is there."""
        self.is_begun = True
        self.head = self.stretches.first = first
        self.read_to = first - 1

    def begin_if_empty(self) -> None:
        """Begin with the first entry of all, unless another one was said."""
        if not self.is_begun:
            self.begin(1)

    def take(self, entry: Entry) -> Batch | None:
        """Take the next entry; return the batch of data that it completes.

        Raises:
            DamagedStream: it is not what was appended, or a broker appended it that did not lead.
            NewerFormat: a newer release wrote it.
        """
        assert entry.sequence == self.read_to + 1, "entries come in their order"
        place = self.note(entry.sequence, [entry.body])
        if self._assembly.is_between:
            self._place = place
        try:
            whole = self._assembly.add(entry)
            self.read_to = entry.sequence
            return None if whole is None else self._know(whole)
        except BadEntry as error:
            raise DamagedStream(self._name, entry.sequence, str(error)) from error

    def note(self, first: int, parts: Sequence[bytes]) -> Place:
        """Note the next entries, to be kept at `flush`; return the place of the first record of a batch there."""
        stretch = self.stretches.first
        offsets = [
            self.places.note(stretch, sequence, len(part))
            for sequence, part in enumerate(parts, first)
        ]
        if self.keep is not None:
            if self._gathered_at[0] != stretch:
                self.flush()
                self._gathered_at = stretch, offsets[0]
            self._gathered += parts
        return Place(stretch, offsets[0] + BATCH_HEADER_BYTES)

    def flush(self) -> None:
        """Have kept what was noted: much at once, for each entry may be small."""
        if self._gathered and self.keep is not None:
            self.keep(*self._gathered_at, self._gathered)
        self._gathered, self._gathered_at = [], (0, 0)

    def end(self) -> None:
        """See that what was read is a whole log; DamagedStream, HalfMoved, LogMoved."""
        if not self._assembly.is_between:
            raise DamagedStream(self._name, self.read_to, "a batch has no end")
        self.see_that_it_is_here()
        if self.head > max(self.log_start, 1):
            what = f"the log starts at entry {self.log_start}, and that is not there"
            raise DamagedStream(self._name, self.head, what)

    def see_that_it_is_here(self) -> None:
        """See that what was read is not elsewhere, and not still on its way; HalfMoved, LogMoved."""
        if self.moved_to:
            raise LogMoved(self._name, self.moved_to)
        if self.half_of and not self.is_for_move:
            raise HalfMoved(self._name, self.half_of)

    def _know(self, whole: Whole) -> Batch | None:
        header = whole.header
        kind = header.kind
        if kind is Kind.SEGMENT:
            self.owner_bits = whole.owner_bits
            self.epoch = max(self.epoch + 1, header.epoch)
        elif self.owner_bits not in (None, whole.owner_bits):
            raise BadEntry(f"it is by a broker that did not lead, and {self.owner} did")
        self.epoch = max(self.epoch, header.epoch)
        self.now_ms = max(self.now_ms, header.now_ms)
        if kind is not Kind.DATA:
            self._state(whole)
            self.stretches.add(whole.last, whole.size_bytes, None)
            return None
        if header.number <= self.number:
            raise BadEntry(f"batch {header.number} comes behind batch {self.number}")
        self.number, self.is_clean = header.number, False
        self.batches += 1
        self.stretches.add(whole.last, whole.size_bytes, header.number)
        return whole.batch(self._place)

    def _state(self, whole: Whole) -> None:
        says, kind = statement_of(whole), whole.header.kind
        if says.format_version > FORMAT_VERSION:
            raise NewerFormat(self._name, says.format_version, FORMAT_VERSION)
        if kind is Kind.SEGMENT:
            self.owner = says.owner
            self.half_of = says.owner.partition(MOVES_IN)[2] or self.half_of
        # Whoever led as the first may not have been the only one who tried: the first record counts, and where it
        # was trimmed, the checkpoint.
        if not self.store_id or kind is Kind.MARKER:
            self.store_id, self.session_key = whole.header.origin.store_id, says.session_key
        if kind is Kind.MARKER:
            self.log_start = says.log_start
            self.stretches.start_at(says.log_start)
            self.half_of = ""
            self.moved_to = says.owner.partition(MOVED_TO)[2]
        self.is_clean = self.is_clean if kind is Kind.SEGMENT else kind is Kind.FOOTER
