"""Room on a full disk: what is refused, what waits, and what is used up last."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from log_world import SEGMENT_BYTES

from minibrokerd.log.allocation import Allocation
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.fileops import FileOps


class WatchedOps(FileOps):
    """Runs out of space from the fourth allocation on, and notes what the loop would read meanwhile."""

    def __init__(self) -> None:
        self.allocation: Allocation | None = None
        self.left = 3
        self.failed_meanwhile: list[bool] = []

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        """Allocate, while there is space."""
        assert self.allocation is not None
        self.failed_meanwhile.append(self.allocation.failed is not None)
        if not self.left:
            raise OSError(errno.ENOSPC, "no space left")
        self.left -= 1
        super().allocate(descriptor, size_bytes)


@pytest.fixture
def ops() -> WatchedOps:
    """A disk with room for the reserve, and no more."""
    return WatchedOps()


def test_a_full_disk_is_full_until_space_was_found(tmp_path: Path, ops: WatchedOps) -> None:
    """Between two tries, too: a publish that saw it otherwise for a moment would wait for ever."""
    directory = DataDirectory(tmp_path / "data", ops)
    directory.open()
    ops.allocation = allocation = Allocation(directory, ops, SEGMENT_BYTES)
    assert not allocation.prepare_next()
    assert not allocation.prepare_next()
    assert ops.failed_meanwhile[-1], "the reserve was whole, and for a moment all seemed well"
    assert allocation.failed
    ops.left = 1
    assert allocation.prepare_next()
    assert allocation.failed is None
    allocation.close()
    directory.close()
