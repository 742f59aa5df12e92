"""Compaction: of the messages with one key only the last one stays.

A message without a key stays. One with an empty body is a tombstone: what its key had goes, and after a while it
goes itself. Segments are gone through from the front, so what a tombstone ended is gone before the tombstone is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from minibrokerd.retained.cutting import are_empty, runs_of
from minibrokerd.retained.frames import Frame

KeysOf = Callable[[Frame], Sequence[bytes] | None]
MOST_KEYS: Final = 1_000_000  # remembered at a time: about 150 MB


@dataclass(slots=True)
class CompactionResult:
    """What a compaction came to, when it has `ended`.

    Not `complete`: there were more keys than it may remember, so another one is due.
    """

    removed: int = 0
    tombstones: int = 0  # of those that were removed
    freed_bytes: int = 0
    segments: int = 0  # that were written anew
    complete: bool = True
    ended: bool = False


class Latest:
    """The last offset of each key, of the messages from where the last compaction ended up to `upto`."""

    def __init__(self, keys_of: KeysOf, ends_before_ms: int, most_keys: int = MOST_KEYS) -> None:
        """Tombstones published before `ends_before_ms` go."""
        self._keys_of = keys_of
        self._ends_before_ms = ends_before_ms
        self._most_keys = most_keys
        self._offsets: dict[bytes, int] = {}
        self.upto = 0
        self.tombstones_stay = False

    def note(self, frame: Frame) -> bool:
        """Remember the keys of a frame; False: there is no room for them."""
        keys = self._keys_of(frame)
        if keys is not None:
            if len(self._offsets) + len(keys) > self._most_keys and self._offsets:
                return False
            self._offsets.update(zip(keys, range(frame.first, frame.stop), strict=True))
        self.upto = frame.stop
        return True

    def rest_of(self, frame: Frame, result: CompactionResult) -> list[Frame]:
        """Return what is left of a frame: itself, if all of it stays."""
        keys, empty = self._keys_of(frame), are_empty(frame)
        if keys is None or empty is None:
            return [frame]
        stays, tombstones = [], 0
        ends = frame.unix_ms < self._ends_before_ms and frame.stop <= self.upto
        ends = ends and not self.tombstones_stay
        for offset, key, is_empty in zip(range(frame.first, frame.stop), keys, empty, strict=True):
            superseded = self._offsets.get(key, offset) > offset
            tombstone = is_empty and ends
            stays.append(not key or not (superseded or tombstone))
            tombstones += bool(key) and is_empty and not stays[-1]
        if all(stays):
            return [frame]
        left = runs_of(frame, _runs(stays))
        if left is None:
            return [frame]
        result.removed += len(stays) - sum(stays)
        result.tombstones += tombstones
        return left


def _runs(stays: Sequence[bool]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for index, stay in enumerate(stays):
        if stay and runs and runs[-1][1] == index:
            runs[-1] = runs[-1][0], index + 1
        elif stay:
            runs.append((index, index + 1))
    return runs
