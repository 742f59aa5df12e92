"""Tails made smaller with zstd: of the standard library from Python 3.14 on, or its backport (extra `zstd`)."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final


def _library() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


_zstd: Final = _library()
LEVEL: Final = 3
PAYS_BELOW: Final = 0.9  # of its size: else it stays as it is, and nobody has to unpack it


class Unreadable(Exception):
    """Bytes that are as they were written, and that this installation cannot read; its text says what to do."""


def can_pack() -> bool:
    """Whether there is a library."""
    return _zstd is not None


def packed(tail: bytes | memoryview) -> bytes | None:
    """Return a tail in fewer bytes; None: it does not pay, or there is no library."""
    if _zstd is None:
        return None
    smaller: bytes = _zstd.compress(tail, LEVEL)
    return smaller if len(smaller) < PAYS_BELOW * len(tail) else None


def unpacked(data: bytes | memoryview) -> bytes | None:
    """Return what was packed; None: it is nothing of the kind.

    Raises:
        Unreadable: there is no library.
    """
    if _zstd is None:
        raise Unreadable(
            "messages of a retained log are compressed with zstd, and no library for it is installed: "
            "pip install 'minibroker[zstd]'"
        )
    try:
        tail: bytes = _zstd.decompress(data)
    except _zstd.ZstdError:
        return None
    return tail
