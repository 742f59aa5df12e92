"""What `Queue.join` says that has too little time: it needs the answer to one look at the least."""

from __future__ import annotations

from typing import Any

import pytest

import minibroker

TRIES_S = (0.02, 0.2, 2.0, 20.0)  # a slow machine may be too late for the first ones


async def left_of(queue: Any, *, delayed: bool = False) -> str:
    """Return what a join says at its end of what is left, by the first one that had time for a look."""
    said = ""
    for timeout_s in TRIES_S:
        with pytest.raises(minibroker.Timeout) as caught:
            await queue.join(timeout=timeout_s, delayed=delayed)
        said = str(caught.value)
        assert f"is not done after {timeout_s} s: " in said
        if "not answered in time" not in said:
            break
    return said.rpartition(": ")[2]
