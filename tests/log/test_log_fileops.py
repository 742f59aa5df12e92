"""The calls that make bytes safe, on a real disk: what they ask of the system."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from minibrokerd.log.fileops import FileOps


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write down which calls promise that data is on the disk."""
    names: list[str] = []
    pwritev, fdatasync = os.pwritev, os.fdatasync

    def write(descriptor: int, buffers: list[bytes], offset: int, flags: int = 0) -> int:
        names.append("synced write" if flags & os.RWF_DSYNC else "write")
        return pwritev(descriptor, buffers, offset, flags)

    def sync(descriptor: int) -> None:
        names.append("sync")
        fdatasync(descriptor)

    monkeypatch.setattr(os, "pwritev", write)
    monkeypatch.setattr(os, "fdatasync", sync)
    return names


def test_a_synced_write_asks_for_the_sync(tmp_path: Path, asked: list[str]) -> None:
    """No test without a power cut would miss it: the page cache has the bytes either way."""
    ops = FileOps()
    descriptor = ops.open(str(tmp_path / "f"), os.O_RDWR | os.O_CREAT)
    assert ops.write_synced(descriptor, b"safe", 0) == 4
    assert asked == ["synced write"]
    assert ops.read(descriptor, 4, 0) == b"safe"
    ops.close(descriptor)


def test_where_the_file_system_knows_no_synced_write_a_sync_follows(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "pwritev", unknown)
    ops = FileOps()
    descriptor = ops.open(str(tmp_path / "f"), os.O_RDWR | os.O_CREAT)
    assert ops.write_synced(descriptor, b"safe", 0) == 4
    assert asked == ["sync"]
    assert ops.read(descriptor, 4, 0) == b"safe"
    ops.close(descriptor)
