"""What a publish returns: ids, and how safe the messages are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, overload

import msgspec

_HOW_SHIFT: Final = 32
_INDEX_MASK: Final = 2**_HOW_SHIFT - 1


class MessageId(NamedTuple):
    """The identity of a message for its whole life; `str()` gives `origin-sequence`."""

    origin: int  # number of the queue it was published to
    sequence: int  # its place among all messages ever published to that queue

    def __str__(self) -> str:
        return f"{self.origin}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> MessageId:
        """Return the id that `text` prints; ValueError if it is none."""
        origin, _, sequence = text.partition("-")
        if not (origin.isdecimal() and sequence.isdecimal()):
            raise ValueError(f"{text!r} is not of the form origin-sequence")
        parsed = cls(int(origin), int(sequence))
        if parsed.origin >= 2**32 or parsed.sequence >= 2**64:
            raise ValueError(f"{text!r} is larger than any id")
        return parsed


class Confirm(msgspec.Struct, frozen=True, gc=False):
    """One message is stored, as safely as `durability` says (sync, lazy, memory, or replicated).

    `duplicate`: it was not stored, because its unique key or dedupe id was known; the id is that of the message
    which stands. `replaced`: the one that waited under its unique key, and that it replaced.
    """

    origin: int
    sequence: int
    durability: str
    duplicate: bool = False
    replaced: MessageId | None = None

    @property
    def id(self) -> MessageId:
        """The id of the message."""
        return MessageId(self.origin, self.sequence)


def known_of(runs: Iterable[tuple[int, int, int, int]]) -> dict[int, tuple[bool, MessageId]]:
    """Return what a confirm says of single messages of a publish, by their index, as `ConfirmRun` has it.

    The first word of a run is that index; above it stands 0 for a duplicate, 1 for what replaced another one.
    """
    return {
        word & _INDEX_MASK: (not word >> _HOW_SHIFT, MessageId(origin, sequence))
        for word, origin, sequence, _ in runs
    }


class ConfirmRun(NamedTuple):
    """Consecutive messages that were confirmed together.

    `known` has, by their index in the run, those that are no plain ones: a duplicate (True) of a message, or what
    replaced it (False).
    """

    origin: int
    first: int
    messages: int
    durability: str
    known: Mapping[int, tuple[bool, MessageId]] | None = None

    def confirm(self, at: int) -> Confirm:
        """Return the confirm of the message with this index."""
        found = self.known.get(at) if self.known is not None else None
        if found is None:
            return Confirm(self.origin, self.first + at, self.durability)
        is_duplicate, id = found
        if is_duplicate:
            return Confirm(*id, self.durability, duplicate=True)
        return Confirm(self.origin, self.first + at, self.durability, replaced=id)

    def part(self, first: int, count: int) -> ConfirmRun:
        """Return the confirms of `count` messages from that with index `first` on."""
        known = self.known and {
            at - first: self.known[at] for at in range(first, first + count) if at in self.known
        }
        return ConfirmRun(self.origin, self.first + first, count, self.durability, known or None)


class Confirms(Sequence[Confirm]):
    """The confirms of many messages, in the order of the bodies.

    A lazy sequence: it stores runs of ids and makes a `Confirm` when one is asked for.
    """

    __slots__ = ("_count", "runs")

    def __init__(self, runs: Sequence[ConfirmRun]) -> None:
        self.runs = runs
        self._count = sum(run.messages for run in runs)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Confirm: ...
    @overload
    def __getitem__(self, index: slice) -> list[Confirm]: ...
    def __getitem__(self, index: int | slice) -> Confirm | list[Confirm]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._count))]
        at = index + self._count if index < 0 else index
        if at >= 0:
            for run in self.runs:
                if at < run.messages:
                    return run.confirm(at)
                at -= run.messages
        raise IndexError(index)

    def __repr__(self) -> str:
        return f"Confirms({self._count} messages)"


class Routed:
    """One message is stored in every queue that an exchange led it to, as safely as `durability` says."""

    __slots__ = ("_at", "_run")

    def __init__(self, run: RoutedRun, at: int) -> None:
        """Of messages that were routed together it is the one with this index."""
        self._run = run
        self._at = at

    @property
    def ids(self) -> dict[str, MessageId]:
        """The id of its copy in each queue, by the queue's name; made when it is asked for.

        Empty: no binding took it, and the exchange drops such messages.
        """
        return {
            name: MessageId(origin, first + self._at) for name, origin, first in self._run.queues
        }

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of the queues."""
        return tuple(name for name, _, _ in self._run.queues)

    @property
    def durability(self) -> str:
        """How safely it is stored: `sync`, `lazy` or `memory`."""
        return self._run.durability

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Routed):
            return NotImplemented
        return (self.ids, self.durability) == (other.ids, other.durability)

    def __hash__(self) -> int:
        return hash((frozenset(self.ids.items()), self.durability))

    def __repr__(self) -> str:
        return f"Routed(ids={self.ids}, durability={self.durability!r})"


class RoutedRun(NamedTuple):
    """Consecutive messages that were routed together: each queue has one run of ids of them."""

    queues: tuple[tuple[str, int, int], ...]  # name, origin, and the sequence of the first message
    messages: int
    durability: str

    def confirm(self, at: int) -> Routed:
        """Return where the message with this index went."""
        return Routed(self, at)

    def part(self, first: int, count: int) -> RoutedRun:
        """Return what became of `count` messages from that with index `first` on."""
        moved = tuple((name, origin, own + first) for name, origin, own in self.queues)
        return RoutedRun(moved, count, self.durability)
