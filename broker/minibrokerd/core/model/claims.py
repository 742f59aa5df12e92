"""What the parts of a frame will take, noted while they are checked: two cannot both have the last place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from typing import Any, Final, NamedTuple

from minibrokerd.core.model.deliveries import Run


class Asked(NamedTuple):
    """Room that is needed: by how many messages, for how many bytes, and who leaves for them anyway."""

    messages: int
    cost: int
    leaving: Container[tuple[int, int]] = ()
    freed_bytes: int = 0  # by those


NOTHING_ASKED: Final = Asked(0, 0)


class Claims:
    """Of the parts of one frame that were checked so far.

    `is_step`: all of the frame happens or nothing does, so a part may not lose anything.
    """

    __slots__ = ("_asked", "_more_bytes", "_named", "_settled", "_targets", "is_step", "new")

    def __init__(self, *, is_step: bool) -> None:
        self.is_step = is_step
        self.new: set[str] = set()  # names of queues that are about to be made
        self._asked: dict[str, Asked] = {}
        self._settled: set[tuple[int, int, int]] = set()
        self._named: Counter[str | None] | None = None  # how many parts are about each queue
        self._more_bytes = self._targets = 0

    def is_alone(self, parts: Sequence[Any], queue: str) -> bool:
        """Whether only one of the parts of the frame is about a queue: no other changes what is there."""
        if self._named is None:
            self._named = Counter(getattr(part, "queue", None) for part in parts)
        return self._named[queue] == 1 and not self._named[None]  # what is routed may go to any

    def add_bytes(self, more: int) -> int:
        """Note bytes of records beside those of the frame; return them with those of the parts before."""
        self._more_bytes += more
        return self._more_bytes

    def add_targets(self, more: int) -> int:
        """Note queues that a part is routed to; return them with those of the parts before."""
        self._targets += more
        return self._targets

    def add(self, queue: str, asked: Asked) -> Asked:
        """Note messages that go into a queue; return what is asked with those of the parts before."""
        before = self._asked.get(queue, NOTHING_ASKED)
        both = Asked(
            before.messages + asked.messages,
            before.cost + asked.cost,
            asked.leaving,
            asked.freed_bytes,
        )
        self._asked[queue] = both
        return both

    def settle(self, run: Run) -> bool:
        """Note the messages of a run as settled; False: one of them is already."""
        token, origin, first, count = run
        before = len(self._settled)
        self._settled.update((token, origin, first + at) for at in range(count))
        return len(self._settled) == before + count
