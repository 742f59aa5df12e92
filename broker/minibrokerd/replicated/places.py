"""Where the entries of a stream stand in a stretch of the log, as bytes: so a place is that of a log of files.

A stretch is named by the sequence of the first entry that was taken for it, and its entries stand in it one behind
the other. What is kept of each is where it ends, 4 bytes. Sequences of a stretch that were never taken here (an
epoch record of our own, about an append without an answer) have no bytes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import NamedTuple


class Wanted(NamedTuple):
    """Entries that have some records: the sequences of the first and the last one, and where the first begins."""

    first: int
    last: int
    offset: int


class Places:
    """The stretches that this broker knows. Entries are noted in one thread, and looked up in any."""

    def __init__(self) -> None:
        self._ends: dict[
            int, array[int]
        ] = {}  # by name of the stretch, of each entry from its first on

    def note(self, name: int, sequence: int, size_bytes: int) -> int:
        """Note the next entry of a stretch; return where it begins. One that is known stands where it stood."""
        ends = self._ends.get(name)
        if ends is None:
            ends = self._ends[name] = array("I")
        index = sequence - name
        if index < len(ends):  # the log is read once more
            return ends[index - 1] if index else 0
        at = ends[-1] if ends else 0
        while len(ends) < index:
            ends.append(at)
        ends.append(at + size_bytes)
        return at

    def find(self, name: int, low: int, high: int) -> Wanted | None:
        """Return the entries with the bytes from `low` to `high`; None: the stretch was given up."""
        ends = self._ends.get(name)
        if ends is None:
            return None
        first, last = bisect_right(ends, low), bisect_right(ends, high)
        return Wanted(
            name + first, name + min(last, len(ends) - 1), ends[first - 1] if first else 0
        )

    def size_of(self, name: int, sequence: int) -> int | None:
        """Return the bytes of an entry; None: it is none of that stretch, or the stretch was given up."""
        ends, index = self._ends.get(name), sequence - name
        if ends is None or not 0 <= index < len(ends):
            return None
        return ends[index] - (ends[index - 1] if index else 0)

    def bytes_of(self, name: int, first: int, last: int) -> int:
        """Return the bytes of entries of a stretch, about: 0 where it was given up."""
        ends = self._ends.get(name)
        if ends is None or last < first:
            return 0
        return ends[min(last - name, len(ends) - 1)] - (
            ends[first - name - 1] if first > name else 0
        )

    def has(self, name: int) -> bool:
        """Whether a stretch was not given up."""
        return name in self._ends

    def give_up(self, log_start: int) -> list[int]:
        """Forget the stretches that end below this entry; return their names."""
        over = [name for name, ends in self._ends.items() if name + len(ends) <= log_start]
        for name in over:
            del self._ends[name]
        return over
