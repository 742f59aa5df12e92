"""Small frames that follow each other become one: what was published alone is read a thousand at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from minibrokerd.retained.cutting import joined
from minibrokerd.retained.frames import Frame

JOINED_BYTES: Final = 128 * 1024
JOINED_MESSAGES: Final = 1_000
# A joined frame has one time, the latest of its messages: by so much at most a message looks younger than it is.
JOINED_MS: Final = 1_000


class Joiner:
    """Takes frames in their order, and gives them back in fewer."""

    __slots__ = ("_bytes", "_first_ms", "_messages", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Frame] = []
        self._bytes = self._messages = self._first_ms = 0

    def add(self, frame: Frame) -> Sequence[Frame]:
        """Take the next frame; return those that nothing can be joined to any more."""
        waiting, size = self._waiting, len(frame.tail)
        if waiting:
            self._messages += frame.count
            self._bytes += size
            if (
                self._messages <= JOINED_MESSAGES
                and self._bytes <= JOINED_BYTES
                and frame.first == waiting[-1].stop
                and -JOINED_MS <= frame.unix_ms - self._first_ms <= JOINED_MS
            ):
                waiting.append(frame)
                return ()
        done = self.rest()
        self._waiting = [frame]
        self._messages, self._bytes, self._first_ms = frame.count, size, frame.unix_ms
        return done

    def rest(self) -> Sequence[Frame]:
        """Return what is left."""
        waiting, self._waiting = self._waiting, []
        together = joined(waiting) if len(waiting) > 1 else None
        return waiting if together is None else [together]


def in_fewer(frames: Sequence[Frame]) -> Iterator[Frame]:
    """Yield frames, joined."""
    joiner = Joiner()
    for frame in frames:
        yield from joiner.add(frame)
    yield from joiner.rest()
