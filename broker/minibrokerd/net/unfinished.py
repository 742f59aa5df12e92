"""Frames that are still arriving, over all connections: what they take of memory in sum has a limit.

One frame may have 16 MiB, and a peer may send all of it but the last byte. When there is too much of that, the
connection with most of it ends: whoever sends small frames is not made to pay for those of others.
"""

from __future__ import annotations

from typing import Protocol

from minibroker.contract import limits


class Sender(Protocol):
    """A connection on which a frame arrives."""

    def refuse_unfinished(self, text: str) -> None:
        """End the connection; the frame is dropped."""
        ...


class Unfinished:
    """Counts the bytes of frames that are not complete yet."""

    def __init__(self) -> None:
        self.bytes = 0
        self._sizes: dict[Sender, int] = {}

    def note(self, sender: Sender, size_bytes: int) -> None:
        """So much of a frame has arrived; 0: it is complete, or its connection has ended."""
        self.bytes += size_bytes - self._sizes.pop(sender, 0)
        if not size_bytes:
            return
        self._sizes[sender] = size_bytes
        while self.bytes > limits.MAX_UNFINISHED_BYTES:
            largest = max(self._sizes, key=self._sizes.__getitem__)
            text = (
                f"frames that are still arriving have {self.bytes} bytes, over all connections; this one is the "
                f"largest and must come again"
            )
            self.note(largest, 0)
            largest.refuse_unfinished(text)
