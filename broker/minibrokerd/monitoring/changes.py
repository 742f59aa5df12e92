"""What a webhook is told: when a check changes its level, and when queues have new dead letters.

No clock and no network: looks come in with their time, notices go out. A change is told once. What gets worse
is told at once; what gets better when it has stayed better for a while: a number at its bound would call again and
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from minibrokerd.monitoring.checks import CHECKS, Bounds, Level, bounds_text, level_of, parse_bounds
from minibrokerd.monitoring.readings import Reading

CALM_S: Final = 30.0  # how long a better level must hold until it is told
AGAIN_S: Final = 60.0  # between two notices about the dead letters of one queue
MOST_QUEUES: Final = 100  # that a notice names
CHANGED: Final = "check.changed"
DEAD: Final = "dead_letters.new"
TYPES: Final = (CHANGED, DEAD)
_BOUNDS: Final[Mapping[str, Bounds]] = {
    name: parse_bounds(check, check.bounds) for name, check in CHECKS.items()
}


@dataclass(frozen=True, slots=True)
class Notice:
    """What one call says: its type, one of `TYPES`, and its data, which JSON can hold."""

    type: str
    data: Mapping[str, Any]


class Changes:
    """What was told so far. It begins with all checks in order, so trouble that was there before is told again."""

    def __init__(self) -> None:
        self._levels: dict[str, Level] = {}
        # Better levels that are not told yet, and since when.
        self._calm: dict[str, tuple[Level, float]] = {}
        self._told_s: dict[str, float] = {}  # queues whose dead letters were told of late
        self._untold: dict[str, int] = {}

    def look(
        self, now_s: float, readings: Iterable[Reading], dead: Mapping[str, int]
    ) -> list[Notice]:
        """Return what is to be told after one look; `dead`: what died since the look before, by queue."""
        notices = [
            notice for reading in readings if (notice := self._judge(now_s, reading)) is not None
        ]
        if (told := self._dead(now_s, dead)) is not None:
            notices.append(told)
        return notices

    def _judge(self, now_s: float, reading: Reading) -> Notice | None:
        name, bounds = reading.check, _BOUNDS[reading.check]
        level = Level.CRITICAL if reading.trouble else level_of(CHECKS[name], bounds, reading.value)
        before = self._levels.get(name, Level.OK)
        if level >= before:
            self._calm.pop(name, None)
            if level == before:
                return None
        else:
            # The worst of what was seen while it calmed down is what it is now.
            worst, since_s = self._calm.get(name, (level, now_s))
            self._calm[name] = (max(worst, level), since_s)
            if now_s - since_s < CALM_S:
                return None
            level, _ = self._calm.pop(name)
        self._levels[name] = level
        return Notice(
            CHANGED,
            {
                "check": name,
                "level": level.name.lower(),
                "before": before.name.lower(),
                "value": reading.value,
                "unit": CHECKS[name].unit.value,
                "bounds": bounds_text(CHECKS[name], bounds),
                "queues": reading.queues,
                "trouble": reading.trouble,
            },
        )

    def _dead(self, now_s: float, dead: Mapping[str, int]) -> Notice | None:
        for name, count in dead.items():
            self._untold[name] = self._untold.get(name, 0) + count
        self._told_s = {name: at for name, at in self._told_s.items() if now_s - at < AGAIN_S}
        due = {name: count for name, count in self._untold.items() if name not in self._told_s}
        if not due:
            return None
        for name in due:
            del self._untold[name]
            self._told_s[name] = now_s
        first = sorted(due, key=lambda name: (-due[name], name))[:MOST_QUEUES]
        return Notice(
            DEAD,
            {
                "messages": sum(due.values()),
                "queues": {name: due[name] for name in first},
                "more_queues": len(due) - len(first),
            },
        )
