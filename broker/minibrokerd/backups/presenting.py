"""A back-up as a data directory, so that what judges those judges it as well; it can only be read."""

from __future__ import annotations

import errno
import os

from minibrokerd.backups.manifest import Manifest
from minibrokerd.backups.shelf import Shelf
from minibrokerd.log.fileops import FileOps


class Presented(FileOps):
    """Shows the files of one back-up under the names and with the sizes that they had; it changes nothing."""

    def __init__(self, shelf: Shelf, manifest: Manifest) -> None:
        self._shelf = shelf
        self._segments = {str(each.name): each for each in manifest.segments}

    def open(self, path: str, flags: int) -> int:
        """Open what stands for `path`, to read."""
        segment = self._segments.get(os.path.basename(path))
        if segment is None or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(errno.EPERM, "a back-up is only read", path)
        return super().open(self._shelf.at(segment.file), flags)

    def exists(self, path: str) -> bool:
        """Whether the back-up has this."""
        return os.path.basename(path) in self._segments

    def size(self, path: str) -> int:
        """Return the size that the file had."""
        return self._segments[os.path.basename(path)].size_bytes

    def list_directory(self, path: str) -> list[str]:
        """Return the names of the segments."""
        return list(self._segments)
