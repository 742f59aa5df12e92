"""How much memory the server takes for its own if nobody says otherwise, and why so much.

The smallest of what bounds this process: the machine's memory, its resource limits, and each control group from
its own up to the root that can be seen. Both versions of control groups are read, also where they stand side by
side, and with a view that begins below the root (containers). Files come in as text: a test can have any tree.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

# As RabbitMQ's high watermark: others live on the machine, the page cache in the group.
SHARE_PERCENT: Final = 60
MIB: Final = 1024 * 1024
LEAST_BYTES: Final = 64 * MIB  # of a small group the server takes more than the share, up to this
LEAST_PERCENT: Final = 80
SET_HERE: Final = "--memory-limit"
_RLIMITS: Final = {"RLIMIT_AS": resource.RLIMIT_AS, "RLIMIT_DATA": resource.RLIMIT_DATA}
# `memory.high` kills nobody, but what goes beyond it is slowed down until it stands still.
_V2_FILES: Final = ("memory.max", "memory.high")
_V1_FILE: Final = "memory.limit_in_bytes"
# Has the smallest limit up to the root, also where a container does not see it.
_V1_STAT: Final = "memory.stat"
Read = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Bound:
    """So much memory this process may have at most, and where that is said."""

    bytes: int
    origin: str


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """What the server may use, in bytes, and where that comes from (`--memory-limit`, or a share of what)."""

    bytes: int
    origin: str

    def fields(self) -> dict[str, int | str]:
        """Return it as the fields of an event."""
        return {"memory_limit_bytes": self.bytes, "memory_limit_from": self.origin}


def of_option(limit_bytes: int | None) -> MemoryLimit:
    """Return the limit that was set, or, if none was, a share of what bounds this process now."""
    return share_of(smallest_bound()) if limit_bytes is None else MemoryLimit(limit_bytes, SET_HERE)


def share_of(bound: Bound) -> MemoryLimit:
    """Return what the server takes of it, in whole MiB."""
    share_bytes = bound.bytes * SHARE_PERCENT // 100
    least_bytes = min(LEAST_BYTES, bound.bytes * LEAST_PERCENT // 100)
    limit_bytes = max(share_bytes, least_bytes)
    return MemoryLimit(max(limit_bytes // MIB * MIB, MIB), bound.origin)


def smallest_bound() -> Bound:
    """Return the smallest of all that bounds this process now."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bounds = [Bound(machine, "machine")]
    for name, number in _RLIMITS.items():
        soft = resource.getrlimit(number)[0]
        if soft != resource.RLIM_INFINITY:
            bounds.append(Bound(soft, f"rlimit:{name}"))
    groups, mounts = _read("/proc/self/cgroup"), _read("/proc/self/mountinfo")
    bounds += group_bounds(groups or "", mounts or "", _read)
    return min(bounds, key=lambda bound: bound.bytes)


def group_bounds(groups: str, mounts: str, read: Read) -> Iterator[Bound]:
    """Yield each limit of a control group on the way from this process's own up to the root that can be seen.

    `groups` is /proc/self/cgroup, `mounts` /proc/self/mountinfo; `read` gives the text of a file, None if there
    is none. What does not look as expected is passed over.
    """
    of_v1, of_v2 = _group_paths(groups)
    for kind, root, mount_point, options in _mounts(mounts):
        if kind == "cgroup2" and of_v2 is not None:
            for folder in _way_up(of_v2, root, mount_point):
                for name in _V2_FILES:
                    yield from _bound(read, folder / name)
        elif kind == "cgroup" and of_v1 is not None and "memory" in options:
            for at, folder in enumerate(_way_up(of_v1, root, mount_point)):
                yield from _bound(read, folder / _V1_FILE)
                if not at:
                    yield from _stat_bound(read, folder / _V1_STAT)


def _group_paths(groups: str) -> tuple[str | None, str | None]:
    """Return the path of the process's group in the memory hierarchy of version 1, and in version 2."""
    of_v1 = of_v2 = None
    for line in groups.splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            of_v2 = path
        elif "memory" in controllers.split(","):
            of_v1 = path
    return of_v1, of_v2


def _mounts(mounts: str) -> Iterator[tuple[str, str, PurePosixPath, list[str]]]:
    """Yield type, root, mount point and options of each mount of control groups."""
    for line in mounts.splitlines():
        before, dash, after = line.partition(" - ")
        head, tail = before.split(" "), after.split(" ")
        if dash and len(head) > 4 and tail[0].startswith("cgroup"):
            yield tail[0], _plain(head[3]), PurePosixPath(_plain(head[4])), tail[-1].split(",")


def _plain(text: str) -> str:
    """Return a path of mountinfo as it is: it writes blanks as `\\040`, and others alike."""
    for code in (0o40, 0o11, 0o12, 0o134):
        text = text.replace(f"\\{code:03o}", chr(code))
    return text


def _way_up(path: str, root: str, mount_point: PurePosixPath) -> Iterator[PurePosixPath]:
    """Yield the folders from the group's own up to the mount point, which shows the tree from `root` on."""
    parts = PurePosixPath(path).parts[1:]
    above = PurePosixPath(root).parts[1:]
    # A group that is not below what is mounted cannot be seen: what can be is the best there is.
    below = parts[len(above) :] if parts[: len(above)] == above and ".." not in parts else ()
    folder = mount_point.joinpath(*below)
    yield folder
    for _ in below:
        folder = folder.parent
        yield folder


def _bound(read: Read, path: PurePosixPath) -> Iterator[Bound]:
    value = _number(read(str(path)) or "")
    if value:
        yield Bound(value, f"cgroup:{path}")


def _stat_bound(read: Read, path: PurePosixPath) -> Iterator[Bound]:
    for line in (read(str(path)) or "").splitlines():
        name, _, text = line.partition(" ")
        value = _number(text)
        if name == "hierarchical_memory_limit" and value:
            yield Bound(value, f"cgroup:{path}:{name}")


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() else 0


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return None
