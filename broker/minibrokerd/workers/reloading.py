"""`--reload`: says when Python files below the current folder change. watchfiles, an extra, does the watching."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable


def is_available() -> bool:
    """Return whether watchfiles is installed."""
    return importlib.util.find_spec("watchfiles") is not None


async def changes(changed: Callable[[list[str]], object]) -> None:
    """Call `changed` with the files that have changed, until cancelled."""
    from watchfiles import PythonFilter, awatch

    async for found in awatch(".", watch_filter=PythonFilter(), step=100):
        changed(sorted({path for _, path in found}))
