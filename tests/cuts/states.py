"""The states of the files that a crash may leave, out of what was durable and what was not.

A state is every file as it would be found: name, content, physical space. What is not synced is taken apart
into pieces: sectors of a write, a new size, a new name; each of them may be there or not, whatever came before
it. A file never stands under two names, nor a rename half: no file system in use splits one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from random import Random
from typing import Final

from support.simulated_disk import (
    Change,
    EntryChange,
    File,
    SimulatedDisk,
    allocated,
    applied,
    entered,
)

SECTOR_BYTES: Final = 512
PAGE_BYTES: Final = 4096
MOST_PIECES: Final = 10  # of these all subsets are tried; of more, some

# Garbage where zeros were being written: the only state of a crash that a start may refuse as damage, for it
# cannot be told from it ("neither zero nor one batch").
SPOILT: Final = "spoilt"

Shape = tuple[bytes, int]  # content and physical space of a file
State = dict[str, Shape]


def disk_of(state: State) -> SimulatedDisk:
    """Return a disk on which all of this is durable."""
    return SimulatedDisk({name: File(data, space) for name, (data, space) in state.items()})


def key_of(state: State) -> int:
    """Return a number that two different states do not share."""
    return hash(frozenset(state.items()))


def sectors(change: Change, sector_bytes: int) -> list[Change]:
    """Return a change in the pieces that a disk takes whole, or not at all."""
    if change.data is None:
        return [change]
    pieces, at, end = [], change.offset, change.offset + len(change.data)
    while at < end:
        stop = min((at // sector_bytes + 1) * sector_bytes, end)
        pieces.append(Change(at, change.data[at - change.offset : stop - change.offset]))
        at = stop
    return pieces


def shape_of(file: File, pieces: Sequence[Change]) -> Shape:
    """Return a file when these pieces, and no others, reached the disk."""
    data: bytes | bytearray = bytes(file.durable)
    space = file.durable_allocated
    for piece in pieces:
        data, space = applied(data, piece), allocated(space, piece)
    return bytes(data), space


def whole(disk: SimulatedDisk) -> State:
    """Return what programs see: the state that a kill leaves, and a crash after a sync of everything."""
    return {name: (bytes(file.data), file.allocated) for name, file in disk.entries.items()}


def durable(disk: SimulatedDisk) -> State:
    """Return the state that a crash leaves which takes all that is pending."""
    entries = disk.durable_entries.items()
    return {name: (bytes(file.durable), file.durable_allocated) for name, file in entries}


class Crash:
    """A crash at one point of a recording: what may be left of the changes that were pending there."""

    def __init__(self, disk: SimulatedDisk, random: Random) -> None:
        self._disk = disk
        self._random = random
        self._files = list(dict.fromkeys([*disk.durable_entries.values(), *disk.entries.values()]))
        self._unsynced = [file for file in self._files if file.pending]

    def states(self, samples: int) -> Iterator[tuple[str, State]]:
        """Yield (kind, state): all subsets where they are few, `samples` of them where not; some may be equal."""
        none: list[list[Change]] = [[] for _ in self._unsynced]
        everything = [list(file.pending) for file in self._unsynced]
        for entries in self._orders(samples):
            for pieces in (none, everything):
                yield "orders", self._state(entries, pieces)
        newest, oldest = self._disk.entries, self._disk.durable_entries
        for index, file in enumerate(self._unsynced):
            surroundings = [(everything, newest), (none, oldest)]
            if len(self._unsynced) == 1 and not self._disk.pending:
                surroundings.pop()
            for kind, some in self._pieces(file, samples):
                for rest, entries in surroundings:
                    yield kind, self._state(entries, [*rest[:index], some, *rest[index + 1 :]])
        for _ in range(samples if self._unsynced else 0):
            mixed = [self._mixed(file) for file in self._unsynced]
            yield "mixed", self._state(self._some_entries(), mixed)

    def one(self) -> State:
        """Return one of these states, as the seed has it."""
        return self._state(self._some_entries(), [self._mixed(file) for file in self._unsynced])

    def _state(self, entries: dict[str, File], pieces: Sequence[Sequence[Change]]) -> State:
        some = dict(zip(self._unsynced, pieces, strict=True))
        return {name: shape_of(file, some.get(file, ())) for name, file in entries.items()}

    # -- the directory --------------------------------------------------------------------------

    def _orders(self, samples: int) -> Iterator[dict[str, File]]:
        pending = self._disk.pending
        if len(pending) <= MOST_PIECES // 2:
            choices: Iterator[tuple[bool, ...]] = product((False, True), repeat=len(pending))
            yield from self._legal(choices)
            return
        prefixes = [
            tuple(at < count for at in range(len(pending))) for count in range(len(pending) + 1)
        ]
        yield from self._legal(iter(prefixes))
        for _ in range(samples):
            yield self._some_entries()

    def _legal(self, choices: Iterator[tuple[bool, ...]]) -> Iterator[dict[str, File]]:
        for choice in choices:
            some = [
                change for change, there in zip(self._disk.pending, choice, strict=True) if there
            ]
            entries = self._entries(some)
            if len(set(entries.values())) == len(entries):
                yield entries

    def _entries(self, changes: Sequence[EntryChange]) -> dict[str, File]:
        entries = dict(self._disk.durable_entries)
        for change in changes:
            entered(entries, change)
        return entries

    def _some_entries(self) -> dict[str, File]:
        while True:
            some = [change for change in self._disk.pending if self._random.random() < 0.5]
            entries = self._entries(some)
            if len(set(entries.values())) == len(entries):
                return entries

    # -- the content of a file ------------------------------------------------------------------

    def _pieces(self, file: File, samples: int) -> Iterator[tuple[str, list[Change]]]:
        """Yield what may be left of the changes of one file."""
        *before, newest = file.pending
        for rest in (before, []) if before else ([],):
            for some in self._cuts(newest):
                yield "cuts", [*rest, *some]
        for sector_bytes in (SECTOR_BYTES, PAGE_BYTES):
            pieces = [piece for change in file.pending for piece in sectors(change, sector_bytes)]
            if len(pieces) > 1:
                for choice in self._choices(len(pieces), samples):
                    yield (
                        "mixes",
                        [piece for piece, there in zip(pieces, choice, strict=True) if there],
                    )
        for index, change in enumerate(file.pending):
            if change.data is not None:
                kind = "garbage" if change.data.strip(b"\0") else SPOILT
                yield kind, [*file.pending[:index], self._garbage(change)]
                zeros = Change(change.offset, bytes(len(change.data)))
                yield "zeros", [*file.pending[:index], zeros]

    def _cuts(self, change: Change) -> Iterator[list[Change]]:
        """Yield the change torn at every byte; what follows stays as it was, or the file ends there."""
        if change.data is None:
            yield [change]
            return
        for cut in range(len(change.data) if change.data.strip(b"\0") else 0):
            yield [Change(change.offset, change.data[:cut])] if cut else []

    def _choices(self, count: int, samples: int) -> Iterator[Sequence[bool]]:
        if count <= MOST_PIECES:
            yield from product((False, True), repeat=count)
            return
        for _ in range(samples):
            yield [self._random.random() < 0.5 for _ in range(count)]

    def _garbage(self, change: Change) -> Change:
        assert change.data is not None
        return Change(change.offset, self._random.randbytes(len(change.data)))

    def _mixed(self, file: File) -> list[Change]:
        """Each piece on its own: there, gone, torn, in sectors, garbage, or zeros."""
        left: list[Change] = []
        for change in file.pending:
            fate = self._random.randrange(7)
            if change.data is None:
                left += [change] if fate % 2 else []
            elif fate == 3:
                left.append(
                    Change(change.offset, change.data[: self._random.randrange(len(change.data))])
                )
            elif fate == 4:
                left += [s for s in sectors(change, SECTOR_BYTES) if self._random.random() < 0.5]
            elif fate == 5 and change.data.strip(b"\0"):
                some = sectors(change, SECTOR_BYTES)
                index = self._random.randrange(len(some))
                left += [*some[:index], self._garbage(some[index])]
            elif fate == 6:
                left.append(Change(change.offset, bytes(len(change.data))))
            elif fate != 2:
                left.append(change)
        return left
