"""The window of sequenced frames: what was written and has no answer yet.

Publish and settle frames of a session share one sequence. A frame is kept byte for byte until its
answer comes, so that a resumed connection can send it again and the server can tell that it is the
same. The window is the flow control: what does not fit waits at the client.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from minibroker.contract import limits

Content = TypeVar("Content")


class Sent(Generic[Content]):
    """A frame that was written: its sequence, its bytes, what it carried, and when (ms) it was written first."""

    __slots__ = ("content", "frame", "sequence", "written_ms")

    def __init__(self, sequence: int, frame: bytes, content: Content, written_ms: int) -> None:
        self.sequence = sequence
        self.frame = frame
        self.content = content
        self.written_ms = written_ms


class Window(Generic[Content]):
    """The unanswered frames of one session, oldest first.

    What may still be written is counted as the server counts: all frames from the oldest unanswered one on, also
    those behind it that were answered, as their outcomes are kept until `answered_below` passes them.
    """

    __slots__ = ("_answered", "_sent", "answered_below", "next_sequence", "size")

    def __init__(self) -> None:
        self._sent: dict[int, Sent[Content]] = {}
        self._answered: dict[int, int] = {}  # size of each answered frame behind the oldest
        self.next_sequence = 1
        self.answered_below = 1  # the oldest unanswered sequence, else the next one to be used
        self.size = 0  # bytes of all frames from `answered_below` on

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[Sent[Content]]:
        return iter(list(self._sent.values()))

    def get(self, sequence: int) -> Sent[Content] | None:
        """Return the unanswered frame with this sequence, if there is one."""
        return self._sent.get(sequence)

    def has_room(self, size: int) -> bool:
        """Return whether a frame of `size` bytes may be written now."""
        if not self._sent:
            return True
        return (
            self.next_sequence - self.answered_below < limits.MAX_UNANSWERED_FRAMES
            and self.size + size <= limits.MAX_UNANSWERED_BYTES
        )

    def is_full(self) -> bool:
        """Return whether not even a small frame may be written now."""
        return not self.has_room(limits.MAX_HEADER_BYTES)

    def add(self, frame: bytes, content: Content, now_ms: int) -> None:
        """Note that `frame` is written under `next_sequence`."""
        self._sent[self.next_sequence] = Sent(self.next_sequence, frame, content, now_ms)
        self.next_sequence += 1
        self.size += len(frame)

    def answer_all(self, first: int, last: int) -> list[Content]:
        """Take out the frames from one to another, and return what they carried; ValueError: too many."""
        if last - first >= limits.MAX_UNANSWERED_FRAMES:
            raise ValueError(f"an answer to {last - first + 1} frames")
        answered = [self.answer(sequence) for sequence in range(first, last + 1)]
        return [sent.content for sent in answered if sent is not None]

    def answer(self, sequence: int) -> Sent[Content] | None:
        """Take out and return the frame with this sequence; None if it was given up before."""
        sent = self._sent.pop(sequence, None)
        if sent is None:
            return None
        if sequence != self.answered_below:
            self._answered[sequence] = len(sent.frame)
            return sent
        self.size -= len(sent.frame)
        self.answered_below += 1
        while self._answered and self.answered_below in self._answered:
            self.size -= self._answered.pop(self.answered_below)
            self.answered_below += 1
        return sent
