"""Refused peers, for the log: the first of a kind from a host has its line, those that follow are counted.

A probe with the wrong protocol, or a client that is refused and comes again, may do so many times a second and for
months. The count of those that followed is said a second later, then after two, four, ... seconds, up to a minute,
and a kind that was quiet for two minutes starts anew. Pure: time comes in, fields of events go out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 60.0
FORGOTTEN_S: Final = 120.0
MAX_KINDS: Final = 64  # a scan of ports comes from many hosts: beyond, all are one kind
OTHERS: Final = "others"


@dataclass(slots=True)
class _Kind:
    """What is known of one kind of refusal from one host."""

    due_s: float
    wait_s: float
    last_s: float
    since_s: float
    count: int = 0
    fields: dict[str, Any] = field(default_factory=dict)


class Refusals:
    """Says which refusals have a line of their own, and what the counted ones are told as."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}

    def is_first(self, kind: Hashable, fields: dict[str, Any], now_s: float) -> bool:
        """Note a refusal; return whether it has its own line. `fields` are those of the line for several."""
        known = self._kinds.get(kind)
        if known is None and len(self._kinds) >= MAX_KINDS:
            kind, fields = OTHERS, {"host": OTHERS}
            known = self._kinds.setdefault(kind, _Kind(now_s, FIRST_WAIT_S, now_s, now_s))
        if known is None:
            self._kinds[kind] = _Kind(now_s + FIRST_WAIT_S, FIRST_WAIT_S, now_s, now_s)
            return True
        known.count += 1
        known.last_s = now_s
        known.fields = fields
        return False

    def due(self, now_s: float) -> Iterator[dict[str, Any]]:
        """Yield the fields of a line for each kind that should be told now; called about once a second."""
        for kind, known in list(self._kinds.items()):
            if known.count and now_s >= known.due_s:
                yield {
                    **known.fields,
                    "count": known.count,
                    "seconds": round(now_s - known.since_s),
                }
                known.count, known.since_s = 0, now_s
                known.wait_s = min(2 * known.wait_s, LONGEST_WAIT_S)
                known.due_s = now_s + known.wait_s
            elif now_s - known.last_s > FORGOTTEN_S:
                del self._kinds[kind]

    def rest(self) -> Iterator[dict[str, Any]]:
        """Yield the same for all that was counted and not told: the server stops."""
        for known in self._kinds.values():
            if known.count:
                yield {**known.fields, "count": known.count}
                known.count = 0
