"""Sizes of the files of a broker that runs: one may go between two looks."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def log_bytes(directory: Path) -> int:
    """Return the bytes of all segments and their indexes, without the reserve."""
    size_bytes = 0
    for path in directory.glob("segment-*"):
        with suppress(FileNotFoundError):  # freed since it was listed
            size_bytes += path.stat().st_size
    return size_bytes
