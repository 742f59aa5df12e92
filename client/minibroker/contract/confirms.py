"""What a publish returns: ids, and how safe the messages are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, overload

import msgspec


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
    """One message is stored, as safely as `durability` says (sync, lazy or memory).

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
