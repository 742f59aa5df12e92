"""What the parts of a frame will take, noted while they are checked: two cannot both have the last place."""

from __future__ import annotations

from minibrokerd.core.model.deliveries import Run


class Claims:
    """Of the parts of one frame that were checked so far.

    `is_step`: all of the frame happens or nothing does, so a part may not lose anything.
    """

    __slots__ = ("_messages", "_settled", "is_step", "new")

    def __init__(self, *, is_step: bool) -> None:
        self.is_step = is_step
        self.new: set[str] = set()  # names of queues that are about to be made
        self._messages: dict[str, int] = {}
        self._settled: set[tuple[int, int, int]] = set()

    def add_messages(self, queue: str, count: int) -> int:
        """Note messages that go into a queue; return how many with those of the parts before."""
        count += self._messages.get(queue, 0)
        self._messages[queue] = count
        return count

    def settle(self, run: Run) -> bool:
        """Note the messages of a run as settled; False: one of them is already."""
        token, origin, first, count = run
        before = len(self._settled)
        self._settled.update((token, origin, first + at) for at in range(count))
        return len(self._settled) == before + count
