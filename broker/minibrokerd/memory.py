"""How memory that the server does not use any more goes back to the machine."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

TRIM_BYTES: Final = 16 * 1024 * 1024  # less is not worth a walk over the heap
LAST_BYTES: Final = 1024 * 1024


class Trimmer:
    """Gives memory back after a backlog went: the C library keeps what it once had in the middle of its heap."""

    def __init__(self) -> None:
        self._most_bytes = 0
        self._going = False  # it was done, and the rest of the backlog was still there
        # Another C library has none, and other habits.
        self._trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def look(self, hot_bytes: int) -> None:
        """Called now and then with what messages take; gives back when that has become much less."""
        self._most_bytes = max(self._most_bytes, hot_bytes)
        much_less = self._most_bytes > TRIM_BYTES and hot_bytes < self._most_bytes // 4
        if much_less or (self._going and hot_bytes < LAST_BYTES):
            self._going, self._most_bytes = much_less and hot_bytes >= LAST_BYTES, hot_bytes
            if self._trim is not None:
                self._trim(0)
