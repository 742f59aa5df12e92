"""What a publish returns: ids, and how safe the messages are."""

from __future__ import annotations

from collections.abc import Sequence
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
    """One message is stored, as safely as `durability` says (sync, lazy or memory)."""

    origin: int
    sequence: int
    durability: str

    @property
    def id(self) -> MessageId:
        """The id of the message."""
        return MessageId(self.origin, self.sequence)


class ConfirmRun(NamedTuple):
    """Consecutive messages that were confirmed together."""

    origin: int
    first: int
    messages: int
    durability: str


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
                    return Confirm(run.origin, run.first + at, run.durability)
                at -= run.messages
        raise IndexError(index)

    def __repr__(self) -> str:
        return f"Confirms({self._count} messages)"
