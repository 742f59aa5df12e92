"""What the error of a `publish_many` says of each body: the confirm of one that is stored, else an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast, overload

from minibroker.contract.confirms import Confirm, ConfirmRun, RoutedRun
from minibroker.contract.errors import MinibrokerError

Part = tuple[
    int, ConfirmRun | RoutedRun | MinibrokerError
]  # count of bodies, and what became of them


class PartialConfirms(Sequence[Confirm | None]):
    """The confirms of a `publish_many` that failed, one entry for each body: None where there is none.

    Those of an exchange are `Routed`.
    """

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
                if isinstance(outcome, MinibrokerError):
                    return None
                return cast("Confirm", outcome.confirm(at))
            at -= count
        raise AssertionError("the counts add up")

    def __repr__(self) -> str:
        stored = sum(n for n, outcome in self._parts if not isinstance(outcome, MinibrokerError))
        return f"PartialConfirms({stored} of {self._count} messages)"


class Failures(Mapping[int, MinibrokerError]):
    """The errors of a `publish_many` that failed, by the index of the body; stored ones are not in it."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def __getitem__(self, index: int) -> MinibrokerError:
        at = index
        for count, outcome in self._parts:
            if 0 <= at < count and isinstance(outcome, MinibrokerError):
                return outcome
            at -= count
        raise KeyError(index)

    def __iter__(self) -> Iterator[int]:
        first = 0
        for count, outcome in self._parts:
            if isinstance(outcome, MinibrokerError):
                yield from range(first, first + count)
            first += count

    def __len__(self) -> int:
        return sum(count for count, outcome in self._parts if isinstance(outcome, MinibrokerError))

    def __repr__(self) -> str:
        return f"Failures({len(self)} messages)"
