"""A broker whose large writes take half at first, as POSIX allows: run it in place of `python -m minibrokerd`.

strace can claim a short write but not make one. With this a fault also falls between the two halves of a batch.
"""

from __future__ import annotations

import sys

from minibrokerd.cli.main import main
from minibrokerd.log import filelog
from minibrokerd.log.fileops import FileOps

LARGE_BYTES = 5_000


class HalvingOps(FileOps):
    """The system calls, of which the large writes are short."""

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write, maybe half."""
        return super().write(descriptor, _half(data), offset)

    def write_synced(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write and sync, maybe half."""
        return super().write_synced(descriptor, _half(data), offset)


def _half(data: bytes | memoryview) -> bytes | memoryview:
    return data if len(data) < LARGE_BYTES else memoryview(data)[: len(data) // 2]


if __name__ == "__main__":
    filelog.FileOps = HalvingOps  # type: ignore[misc]
    sys.exit(main())
