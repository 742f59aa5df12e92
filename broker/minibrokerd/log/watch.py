"""Whether the files of a running server are still those that its name leads to.

Descriptors outlive names: a log whose directory was removed, moved or replaced takes every write and sync, and
the next start finds nothing of it. So somebody looks now and then, in the thread that writes: three calls that
touch no disk.
"""

from __future__ import annotations

import errno

from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.tail import Tail


class Watch:
    """Looks after one data directory and the segment that is written."""

    def __init__(self, directory: DataDirectory, tail: Tail) -> None:
        self._directory = directory
        self._tail = tail

    def look(self) -> None:
        """Return if all is as it was.

        Also a symbolic link that leads elsewhere now counts as taken away: what is written from here on would
        not be found by a start under the same name.

        Raises:
            OSError: the directory, its lock or the newest segment was removed, moved or replaced, or nothing can
                be written to it any more.
        """
        self._directory.check()
        segment = self._tail.segment
        if segment is not None and not self._directory.ops.is_linked(segment.descriptor):
            path = self._directory.at(segment.name)
            raise OSError(errno.ESTALE, "the segment that is written was removed", path)
