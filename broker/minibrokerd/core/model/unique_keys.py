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
MANY: Final = 16  # holders of one key, from which on each is found by itself
Id = tuple[int, int]


class UniqueKeys:
    """The unique keys of one queue, each with the ids of the messages that hold it.

    Mostly that is one. More are there with `replace` and `keep-latest`, where one waits beside those that workers
    have, and where a redrive or a move brought one: those are no publishes, so nothing of them is dropped. Very
    many are in the dead-letter queue of a job that dies each time.
    """

    __slots__ = ("_holders", "_home", "_sums")

    def __init__(self, home: int, sums: Sums) -> None:
        self._home = home
        self._sums = sums
        # Ids, as `key_in` has them.
        self._holders: dict[str, tuple[int, ...] | dict[int, None]] = {}

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
                ids = holders.get(key, ())
                if isinstance(ids, dict):
                    ids[id] = None
                else:
                    ids = (*ids, id)
                    holders[key] = ids if len(ids) < MANY else dict.fromkeys(ids)
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
                left = holders.get(key, ())
                if isinstance(left, dict):
                    left.pop(id, None)
                else:
                    left = tuple(other for other in left if other != id)
                if left:
                    holders[key] = left
                else:
                    holders.pop(key, None)
        self._sums.unique_keys += len(holders) - before

    def holders(self, key: str) -> list[Id]:
        """Return the ids of those that hold a key, the newest last."""
        return [self._id(id) for id in sorted(self._holders.get(key, ()))]

    def newest(self, key: str) -> Id | None:
        """Return the id of the newest of those that hold a key; None: it is free."""
        newest = max(self._holders.get(key, ()), default=None)
        return None if newest is None else self._id(newest)

    def _id(self, id: int) -> Id:
        return id >> _SEQUENCE_BITS or self._home, id & (1 << _SEQUENCE_BITS) - 1

    def clear(self) -> None:
        """Let all of them go: a purge."""
        self._sums.unique_keys -= len(self._holders)
        self._holders = {}
