"""A disk of a few MiB that a test can fill to the last byte: a tmpfs of its own.

Root mounts it. Anybody else runs the whole program in a user namespace (`unshare -Urm`), in which he is root.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

PAGE_BYTES = 4_096
IN_NAMESPACE = "MINIBROKER_IN_NAMESPACE"


class SmallDisk:
    """A tmpfs mounted on `path`; `fill` takes what is free of it, `release` gives that back."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Mount it.

        Raises:
            PermissionError: this user may not mount, not even in a user namespace.
        """
        self.path = path
        self.path.mkdir()
        options = f"size={size_bytes},mode=700"
        mount = ["mount", "-t", "tmpfs", "-o", options, "minibroker-test", str(path)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PermissionError(f"cannot mount a tmpfs: {done.stderr.strip()}")
        self._junk = path / "junk"

    @property
    def free_bytes(self) -> int:
        """Return what is free."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self) -> None:
        """Let junk take all that is free, to the last page."""
        with self._junk.open("ab", buffering=0) as junk:
            while free_bytes := self.free_bytes:
                try:
                    os.posix_fallocate(junk.fileno(), junk.seek(0, os.SEEK_END), free_bytes)
                except OSError:  # somebody was faster: look again
                    continue

    def take(self, size_bytes: int) -> None:
        """Let junk take so much, or what there is."""
        with self._junk.open("ab", buffering=0) as junk:
            size_bytes = min(size_bytes, self.free_bytes)
            if size_bytes:
                os.posix_fallocate(junk.fileno(), 0, size_bytes)

    def release(self) -> None:
        """Give the space of the junk back."""
        self._junk.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it; what was on it is gone."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)


def in_namespace(command: list[str]) -> list[str]:
    """Return a command that runs `command` where it may mount: as it is for root."""
    return command if os.geteuid() == 0 else ["unshare", "-Urm", *command]
