"""The window of sequenced frames: what was written and has no answer yet.

Publish and settle frames of a session share one sequence. A frame is kept byte for byte until its
answer comes, so that a resumed connection can send it again and the server can tell that it is the
same. The window is the flow control: what does not fit waits at the client.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from minibroker import limits

Content = TypeVar("Content")


class Sent(Generic[Content]):
    """A frame that was written: its sequence, its bytes, and what it carried."""

    __slots__ = ("content", "frame", "sequence")

    def __init__(self, sequence: int, frame: bytes, content: Content) -> None:
        self.sequence = sequence
        self.frame = frame
        self.content = content


class Window(Generic[Content]):
    """The unanswered frames of one session, oldest first."""

    __slots__ = ("_sent", "next_sequence", "size")

    def __init__(self) -> None:
        self._sent: dict[int, Sent[Content]] = {}
        self.next_sequence = 1
        self.size = 0  # bytes of the unanswered frames

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[Sent[Content]]:
        return iter(list(self._sent.values()))

    @property
    def answered_below(self) -> int:
        """The lowest sequence whose answer is still awaited, else the next one to be used."""
        return next(iter(self._sent), self.next_sequence)

    def has_room(self, size: int) -> bool:
        """Return whether a frame of `size` bytes may be written now."""
        if not self._sent:
            return True
        # Counted from the oldest: answers come out of order, and the server looks at the distance.
        return (
            self.next_sequence - self.answered_below < limits.MAX_UNANSWERED_FRAMES
            and self.size + size <= limits.MAX_UNANSWERED_BYTES
        )

    def is_full(self) -> bool:
        """Return whether not even a small frame may be written now."""
        return not self.has_room(limits.MAX_HEADER_BYTES)

    def add(self, frame: bytes, content: Content) -> None:
        """Note that `frame` is written under `next_sequence`."""
        self._sent[self.next_sequence] = Sent(self.next_sequence, frame, content)
        self.next_sequence += 1
        self.size += len(frame)

    def answer(self, sequence: int) -> Sent[Content] | None:
        """Take out and return the frame with this sequence; None if it was given up before."""
        sent = self._sent.pop(sequence, None)
        if sent is not None:
            self.size -= len(sent.frame)
        return sent
