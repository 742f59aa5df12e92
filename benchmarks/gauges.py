"""Two gauges that stand beside every figure: how fast this disk syncs, how fast this Python counts.

A figure in messages a second says little about a program until it is read against the machine. Both
gauges are taken in slices around the repetitions of a row, so they saw the same neighbours and the same
temperature. S is the p50 of writing one record and calling fdatasync, into a file that is zero-filled
ahead like a segment of the log and lies on the same file system.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

FILE_BYTES = 64 * 1024 * 1024
BATCH_HEADER_BYTES = 88
RECORD_HEAD_BYTES = 16
META_BYTES = 72  # about what the fields of a publish record take
LENGTHS_BYTES = 8  # for each message


def record_bytes(messages: int, body_bytes: int) -> int:
    """Return what one batch with one frame of `messages` takes in the log, rounded as the log does."""
    size = (
        BATCH_HEADER_BYTES
        + RECORD_HEAD_BYTES
        + META_BYTES
        + messages * (LENGTHS_BYTES + body_bytes)
    )
    return -(-size // 8) * 8


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which `percent` of 100 lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class SyncGauge:
    """Writes and syncs records of one size; `samples` has the seconds that each took."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.samples: list[float] = []
        self._path = folder / "sync-gauge"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        for _ in range(FILE_BYTES // 2**20):
            os.write(self._file, bytes(2**20))
        os.fsync(self._file)
        self._record = os.urandom(size_bytes)
        self._at = 0

    def measure(self, count: int) -> None:
        """Add `count` samples."""
        for _ in range(count):
            if self._at + self.size_bytes > FILE_BYTES:
                self._at = 0
            started = perf_counter()
            os.pwrite(self._file, self._record, self._at)
            os.fdatasync(self._file)
            self.samples.append(perf_counter() - started)
            self._at += self.size_bytes

    @property
    def p50_us(self) -> float:
        """S: the median of all samples in microseconds."""
        return median(self.samples) * 1e6

    def close(self) -> None:
        """Remove the file."""
        os.close(self._file)
        self._path.unlink()


class LoopGauge:
    """Counts iterations of an empty loop, in slices that add up to a second."""

    def __init__(self) -> None:
        self.iterations = 0
        self.seconds = 0.0

    def measure(self, seconds: float) -> None:
        """Count for a while; the clock is looked at once in 10,000 iterations."""
        started = perf_counter()
        while perf_counter() - started < seconds:
            for _ in range(10_000):
                pass
            self.iterations += 10_000
        self.seconds += perf_counter() - started

    @property
    def per_second(self) -> float:
        """Iterations a second over all slices."""
        return self.iterations / self.seconds
