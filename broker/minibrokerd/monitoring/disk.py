"""The file system that the log is on."""

from __future__ import annotations

import os

from minibrokerd.monitoring.view import View


def free_share(view: View) -> float | None:
    """Return how much of the file system of the data directory is free for the broker, 0 to 1; None: not known."""
    found = file_system(view)
    return None if found is None else found.f_bavail / (found.f_blocks or 1)


def file_system(view: View) -> os.statvfs_result | None:
    """Return what the system says of it; None: the log has no disk, or it cannot be asked."""
    if view.log.segments is None or not view.data_dir:
        return None
    try:
        return os.statvfs(view.data_dir)
    except OSError:
        return None
