"""Tasks that are published once, whoever tries again: the body of a chord, by whichever worker ends its header.

Between the publish and the note of it a worker may be killed. The one that does the same again publishes under the
same ids, and what stands under one of them is not stored a second time (docs/decisions/0051).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

WINDOW_S: Final = 86_400.0


class _Numbers:
    """Numbers of tasks in the order of their first publish: a second try of one has the number of the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._known: dict[Any, int] = {}

    def of(self, task_id: Any) -> str:
        return f"{self._name}/{self._known.setdefault(task_id, len(self._known))}"


_numbers: ContextVar[_Numbers | None] = ContextVar("minibroker_once", default=None)


@contextmanager
def once(name: str) -> Iterator[None]:
    """Let tasks that this block publishes be numbered by their order in it, under a name: each is stored once."""
    token = _numbers.set(_Numbers(name))
    try:
        yield
    finally:
        _numbers.reset(token)


def terms_of(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the next task is published with; nothing outside of such a block, or for what is no task."""
    numbers = _numbers.get()
    if numbers is None or "task" not in headers:
        return {}
    return {"dedupe_id": numbers.of(headers.get("id")), "dedupe_window": WINDOW_S}
