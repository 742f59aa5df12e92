"""Tasks that are published once, whoever tries again: the body of a chord, by whichever worker ends its header.

Between the publish and the note of it a worker may be killed. The one that does the same again publishes under the
same ids, and what stands under one of them is not stored a second time (docs/decisions/0051).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any, Final

WINDOW_S: Final = 86_400.0

_ids: ContextVar[Iterator[str] | None] = ContextVar("minibroker_once", default=None)


@contextmanager
def once(name: str) -> Iterator[None]:
    """Let tasks that this block publishes be numbered by their order in it, under a name: each is stored once."""
    token = _ids.set(f"{name}/{number}" for number in count())
    try:
        yield
    finally:
        _ids.reset(token)


def terms_of(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the next task is published with; nothing outside of such a block, or for what is no task."""
    ids = _ids.get()
    if ids is None or "task" not in headers:
        return {}
    return {"dedupe_id": next(ids), "dedupe_window": WINDOW_S}
