"""The API of what is watched: the numbers that checks judge."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Final

from minibrokerd.http.requests import Ask, Failure, checked_pattern
from minibrokerd.monitoring.history import KEPT_S
from minibrokerd.monitoring.readings import Readings
from minibrokerd.monitoring.watch import WINDOW_S

MOST_PATTERNS: Final = 100


async def list_readings(ask: Ask) -> Readings:
    """Return the numbers."""
    watch = ask.subject.watch
    if watch is None:
        raise Failure(503, "not_ready", "the broker is starting")
    window_s = ask.number("window", round(WINDOW_S), round(KEPT_S))
    return await watch.readings(window_s, _fits(_patterns(ask, "queues"), _patterns(ask, "skip")))


def _patterns(ask: Ask, name: str) -> list[str]:
    patterns = [checked_pattern(name, each) for each in ask.text(name).split(",") if each]
    if len(patterns) > MOST_PATTERNS:
        raise Failure(400, "bad_value", f"{name} has more than {MOST_PATTERNS} patterns")
    return patterns


def _fits(these: list[str], but: list[str]) -> Callable[[str], bool]:
    def fits(name: str) -> bool:
        return (not these or any(fnmatchcase(name, each) for each in these)) and not any(
            fnmatchcase(name, each) for each in but
        )

    return fits
