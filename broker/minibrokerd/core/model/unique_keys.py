"""Who holds a unique key: the messages themselves, from their publish to their end.

Nothing is kept of a key beside its messages: it is held while one of them is in its queue, in whatever state, and
free with the last. So a start finds who holds what when it finds the messages, and no lock can be left behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from minibrokerd.core.model.messages import Block, key_in
from minibrokerd.core.model.sums import Sums

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEQUENCE_BITS: Final = 64
Id = tuple[int, int]


class UniqueKeys:
    """The unique keys of one queue, each with the ids of the messages that hold it.

    Mostly that is one. More are there with `replace` and `keep-latest`, where one waits beside those that workers
    have, and where a redrive or a move brought one: those are no publishes, so nothing of them is dropped.
    """

    __slots__ = ("_holders", "_home", "_sums")

    def __init__(self, home: int, sums: Sums) -> None:
        self._home = home
        self._sums = sums
        self._holders: dict[str, tuple[int, ...]] = {}  # ids, as `key_in` has them

    def __len__(self) -> int:
        return len(self._holders)

    def __iter__(self) -> Iterator[str]:
        return iter(self._holders)

    def hold(self, block: Block, first: int, stop: int) -> None:
        """Let messages of a block hold their keys."""
        assert block.uniques is not None
        holders, before = self._holders, len(self._holders)
        for sequence, key in enumerate(
            block.uniques[first - block.first : stop - block.first], first
        ):
            if key:
                id = key_in(self._home, block.origin, sequence)
                holders[key] = (*holders.get(key, ()), id)
        self._sums.unique_keys += len(holders) - before

    def let_go(self, block: Block, first: int, stop: int) -> None:
        """Let messages of a block, which are here no more, hold nothing."""
        assert block.uniques is not None
        holders, before = self._holders, len(self._holders)
        for sequence, key in enumerate(
            block.uniques[first - block.first : stop - block.first], first
        ):
            if key:
                id = key_in(self._home, block.origin, sequence)
                left = tuple(other for other in holders.get(key, ()) if other != id)
                if left:
                    holders[key] = left
                else:
                    holders.pop(key, None)
        self._sums.unique_keys += len(holders) - before

    def holders(self, key: str) -> list[Id]:
        """Return the ids of those that hold a key, the newest last."""
        return [
            (id >> _SEQUENCE_BITS or self._home, id & (1 << _SEQUENCE_BITS) - 1)
            for id in sorted(self._holders.get(key, ()))
        ]

    def clear(self) -> None:
        """Let all of them go: a purge."""
        self._sums.unique_keys -= len(self._holders)
        self._holders = {}
