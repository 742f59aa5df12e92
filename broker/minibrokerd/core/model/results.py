"""Who waits for what messages come to, and how far those are that somebody works on. None of it is in the log.

What a message came to is an entry of `kept.py`, of kind RESULT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from minibrokerd.core.model.wheel import Timer

Id = tuple[int, int]  # origin and sequence of a message

MOST_PROGRESS: Final = 10_000  # messages of which it is known how far they are


class Progress(NamedTuple):
    """How far the work on a message is, as its worker last said; `mark` is of this word and no other."""

    mark: int
    permille: int
    note: str
    queue: int  # the number of the one that it is worked on in


class Asked:
    """One request that waits for the result of a message; `queue` is the number of the one it was asked of."""

    __slots__ = ("connection", "id", "mark", "queue", "request", "timer")

    def __init__(self, connection: int, request: int, queue: int, id: Id, mark: int | None) -> None:
        self.connection = connection
        self.request = request
        self.queue = queue
        self.id = id
        self.mark = mark  # of the progress that its client knows; None: it does not want to know
        self.timer: Timer | None = None


class Results:
    """What is known and awaited of results, beside those that are there."""

    __slots__ = ("_next_mark", "new", "progress", "waiting")

    def __init__(self) -> None:
        self.new: dict[
            Id, None
        ] = {}  # waited for of late: it is not known that there is such a message
        self.waiting: dict[
            Id, dict[Asked, None]
        ] = {}  # of one message very many may wait for the result
        self.progress: dict[Id, Progress] = {}
        self._next_mark = 1

    def wait(self, asked: Asked) -> None:
        """Know a request that waits."""
        self.waiting.setdefault(asked.id, {})[asked] = None

    def forget(self, asked: Asked) -> None:
        """Know a request no more: it has its answer, or nobody waits for that."""
        others = self.waiting.get(asked.id, {})
        others.pop(asked, None)
        if not others:
            self.waiting.pop(asked.id, None)

    def note(self, id: Id, permille: int, note: str, queue: int) -> None:
        """Note how far a message is; of very many, those that said nothing for longest are forgotten."""
        self.progress.pop(id, None)
        self.progress[id] = Progress(self._next_mark, permille, note, queue)
        self._next_mark += 1
        if len(self.progress) > MOST_PROGRESS:
            del self.progress[next(iter(self.progress))]
