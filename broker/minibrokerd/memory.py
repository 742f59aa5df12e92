"""How much memory the server may use: what the machine has, or what its container is allowed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

SHARE_PERCENT: Final = 60  # of it, as RabbitMQ's high watermark: others live on the machine, too
_LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def default_limit_bytes() -> int:
    """Return the share of the memory that the server takes for its own if nobody says otherwise."""
    has_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in map(Path, _LIMITS):
        try:
            text = path.read_text().strip()
        except OSError:  # no such control group here
            continue
        if text.isdigit():
            has_bytes = min(has_bytes, int(text))
    return has_bytes * SHARE_PERCENT // 100
