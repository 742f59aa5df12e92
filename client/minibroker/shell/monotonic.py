"""The clock of calls and their deadlines; leases have one of their own (shell/real_threads.py)."""

from __future__ import annotations

from time import monotonic


def now_ms() -> int:
    """Return the monotonic time in ms."""
    return int(monotonic() * 1000)
