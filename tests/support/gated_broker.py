"""A broker whose disk hangs on demand: run it in place of `python -m minibrokerd`.

A synced write waits while the FIFO `GATE_WRITES` is there, a read while `GATE_READS` is; the line `gate: writes`
or `gate: reads` says so. Whoever opens the FIFO for writing lets one call through.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from minibrokerd.cli.main import main
from minibrokerd.log.fileops import FileOps


def gate(name: str) -> None:
    """Wait if there is a gate."""
    path = os.environ.get(f"GATE_{name.upper()}", "")
    if path and os.path.exists(path):
        print(f"gate: {name}", flush=True)
        with suppress(FileNotFoundError):  # opened just now
            os.close(os.open(path, os.O_RDONLY))


class GatedOps(FileOps):
    """The system calls, behind their gates."""

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """Read, maybe late."""
        gate("reads")
        return super().read(descriptor, size_bytes, offset)

    def write_synced(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write, maybe late."""
        gate("writes")
        return super().write_synced(descriptor, data, offset)


if __name__ == "__main__":
    from minibrokerd.log import filelog

    filelog.FileOps = GatedOps  # type: ignore[misc]
    sys.exit(main())
