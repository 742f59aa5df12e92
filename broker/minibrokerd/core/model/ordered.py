"""Values in their order, each once, as short lists one after the other.

So one that comes or goes moves a short list, however many there are; in one list it would move most of 100,000.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Final, Generic, TypeVar

MOST: Final = 512  # values of one list

Value = TypeVar("Value")


class Ordered(Generic[Value]):
    """The values, which have an order among each other."""

    __slots__ = ("_count", "_lists")

    def __init__(self) -> None:
        self._lists: list[list[Any]] = []  # none of them empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Value]:
        return chain.from_iterable(self._lists)

    def __contains__(self, value: Any) -> bool:
        at = self._list_of(value)
        if at == len(self._lists):
            return False
        some = self._lists[at]
        return bool(some[bisect_left(some, value)] == value)

    def add(self, value: Value) -> None:
        """Enter a value that is not here."""
        self._count += 1
        if not self._lists:
            self._lists.append([value])
            return
        at = min(self._list_of(value), len(self._lists) - 1)
        some = self._lists[at]
        insort(some, value)
        if len(some) > MOST:
            middle = len(some) // 2
            self._lists.insert(at + 1, some[middle:])
            del some[middle:]

    def remove(self, value: Value) -> None:
        """Take a value out that is here."""
        self._count -= 1
        at = self._list_of(value)
        some = self._lists[at]
        del some[bisect_left(some, value)]
        if not some:
            del self._lists[at]

    def behind(self, value: Value, most: int) -> list[Value]:
        """Return up to `most` values behind one, which need not be here."""
        at = self._list_of(value)
        if at == len(self._lists):
            return []
        first = self._lists[at]
        rest = chain.from_iterable(islice(self._lists, at + 1, None))
        return list(islice(chain(first[bisect_right(first, value) :], rest), most))

    def _list_of(self, value: Any) -> int:
        """Return which list a value is in, or would be; behind the last one: it is beyond all."""
        return bisect_left(self._lists, value, key=_last)


def _last(some: list[Any]) -> Any:
    return some[-1]
