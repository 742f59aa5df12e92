"""What the process takes of memory, and how what it does not use any more goes back to the machine."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

# A pass looks at as many: 4 ms where each refers to others all over memory.
YOUNG_OBJECTS: Final = 5_000
TRIM_BYTES: Final = 8 * 1024 * 1024  # less is not worth a walk over the heap
LAST_BYTES: Final = 1024 * 1024
FREE_SHARE: Final = 16  # of the limit: what may always be in use, whatever else fills the process
_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def collect_little() -> None:
    """Enable the collector, for this whole process: it looks at what is new, some ms at a time, then never again.

    A pass over all that waits stops the loop: over 300,000 delayed messages for 0.8 s, over the youngest 50,000
    objects for 55 ms. What serves messages makes no circles: of 1,000 sessions that came and went, none was left.
    """
    gc.freeze()  # what is there goes by itself
    gc.enable()
    gc.set_threshold(YOUNG_OBJECTS, 1_000, 1_000)
    if _keep not in gc.callbacks:
        gc.callbacks.append(_keep)


def collect_all() -> None:
    """Let go of circles, too, in what there was so far: all of the state was replaced."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _keep(phase: str, info: dict[str, int]) -> None:
    if phase == "stop":
        gc.freeze()


def resident_bytes() -> int:
    """Return what the process has of memory now; 0 where nobody says. Takes about 10 us."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES
    except OSError:  # no /proc here
        return 0


class Gauge:
    """Tells from an estimate whether the limit is reached, and corrects it by what the process really has.

    What was freed is not always given back, but it is used again: so the resident size counts only while it grows.
    The estimate at which it grew beyond the limit is what may be in use, until less is in use and it grows anew.
    """

    def __init__(self, resident: Callable[[], int] = resident_bytes) -> None:
        self._resident = resident
        self._peak_bytes = 0
        self._full_at: int | None = None  # the estimate that filled the limit; None: none has

    def look(self, used_bytes: int, limit_bytes: int) -> None:
        """Note what is in use by the estimate, and compare the resident size with the limit."""
        now_bytes = self._resident()
        if now_bytes < limit_bytes:
            self._full_at = None
        elif now_bytes > self._peak_bytes or self._full_at is None:
            self._full_at = used_bytes
        self._peak_bytes = now_bytes

    def is_above(self, used_bytes: int, limit_bytes: int) -> bool:
        """Whether no more may be taken in, with so much in use by the estimate."""
        full_at = self._full_at
        return full_at is not None and used_bytes >= max(
            full_at * 7 // 8, limit_bytes // FREE_SHARE
        )


# Another C library has none of them, and other habits.
_TRIM: Final[Callable[[int], int] | None] = getattr(ctypes.CDLL(None), "malloc_trim", None)
_OPTION: Final[Callable[[int, int], int] | None] = getattr(ctypes.CDLL(None), "mallopt", None)
_ARENA_MAX: Final = -8  # M_ARENA_MAX of malloc.h


def share_heap() -> None:
    """Let all threads of this process have one heap; before any of them is started.

    Each would get one of its own, whose end is never given back: of the writer's, 4 MiB. The interpreter lets them
    take turns as it is.
    """
    if _OPTION is not None:
        _OPTION(_ARENA_MAX, 1)


def give_back() -> None:
    """Give the holes in the heap back to the machine: some ms, and a fault for each page that is used again."""
    if _TRIM is not None:
        _TRIM(0)


class Trimmer:
    """Gives memory back after much of it went: the C library keeps what it once had in the middle of its heap."""

    def __init__(self) -> None:
        self._most_bytes = 0
        self._going = False  # it was done, and the rest was still there

    def look(self, used_bytes: int) -> None:
        """Called now and then with what is in use, by the estimate; gives back when that has become much less."""
        self._most_bytes = max(self._most_bytes, used_bytes)
        much_less = self._most_bytes > TRIM_BYTES and used_bytes < self._most_bytes // 4
        if much_less or (self._going and used_bytes < LAST_BYTES):
            self._going, self._most_bytes = much_less and used_bytes >= LAST_BYTES, used_bytes
            give_back()
