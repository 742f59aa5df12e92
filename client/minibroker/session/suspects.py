"""Which of several frames did the server end the connection for?

An error that names no frame may be meant for any that had no answer. They are sent again one by one, each when
the one before it has its answer; the frame that is alone when the connection ends once more is given up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence


class Suspects:
    """The sequences of the frames that are sent again one by one."""

    __slots__ = ("_waiting", "alone")

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self.alone: int | None = None  # written on this connection, and nothing else was

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def accuse(self, sequences: Sequence[int], *, only_these: bool) -> int | None:
        """The server ended the connection: return the guilty frame if it is known, else note the suspects.

        `only_these`: nothing else that the connection carried was without an answer.
        """
        guilty, self.alone = self.alone, None
        if guilty is None and only_these and len(sequences) == 1:
            [guilty] = sequences
        if guilty is None and not self._waiting:
            self._waiting.extend(sequences)
        return guilty

    def next(self, is_unanswered: Callable[[int], object]) -> int | None:
        """Return the frame to be written now; None: the one that was written has no answer, or none is left."""
        while self._waiting and not is_unanswered(self._waiting[0]):
            self._waiting.popleft()
            self.alone = None
        if not self._waiting or self.alone is not None:
            return None
        self.alone = self._waiting[0]
        return self.alone

    def disconnected(self) -> None:
        """The connection ended for another reason: what was written alone is written again."""
        self.alone = None
