"""What a publish returns: ids, and how safe the messages are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, overload

import msgspec

from minibroker.contract.errors import MinibrokerError


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


Part = tuple[int, ConfirmRun | MinibrokerError]  # count of bodies, and what became of them


class PartialConfirms(Sequence[Confirm | None]):
    """The confirms of a `publish_many` that failed, one entry for each body: None where there is none."""

    __slots__ = ("_count", "_parts")

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._count = sum(count for count, _ in parts)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Confirm | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[Confirm | None]: ...
    def __getitem__(self, index: int | slice) -> Confirm | list[Confirm | None] | None:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._count))]
        at = index + self._count if index < 0 else index
        if not 0 <= at < self._count:
            raise IndexError(index)
        for count, outcome in self._parts:
            if at < count:
                if not isinstance(outcome, ConfirmRun):
                    return None
                return Confirm(outcome.origin, outcome.first + at, outcome.durability)
            at -= count
        raise AssertionError("the counts add up")

    def __repr__(self) -> str:
        stored = sum(count for count, outcome in self._parts if isinstance(outcome, ConfirmRun))
        return f"PartialConfirms({stored} of {self._count} messages)"


class Failures(Mapping[int, MinibrokerError]):
    """The errors of a `publish_many` that failed, by the index of the body; stored ones are not in it."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def __getitem__(self, index: int) -> MinibrokerError:
        at = index
        for count, outcome in self._parts:
            if 0 <= at < count and not isinstance(outcome, ConfirmRun):
                return outcome
            at -= count
        raise KeyError(index)

    def __iter__(self) -> Iterator[int]:
        first = 0
        for count, outcome in self._parts:
            if not isinstance(outcome, ConfirmRun):
                yield from range(first, first + count)
            first += count

    def __len__(self) -> int:
        return sum(count for count, outcome in self._parts if not isinstance(outcome, ConfirmRun))

    def __repr__(self) -> str:
        return f"Failures({len(self)} messages)"


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
