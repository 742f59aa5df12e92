"""Publishes to exchanges: grouped as those to queues are, apart by what bindings look at.

A group is for one exchange, and its messages share routing key and headers to match. What one caller publishes to
an exchange leaves in the order of the calls, whatever the routing keys: each queue gets its share in that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from minibroker.contract import wire
from minibroker.contract.confirms import RoutedRun
from minibroker.session.outbox import GROUP_MESSAGES, NOTHING_PLAIN, TERMS, Key, PublishGroup
from minibroker.session.settlements import Run

MARK: Final = "exchange "  # before its name, in a key: no queue has one with a space, and their order is another


class RouteGroup(PublishGroup):
    """Messages for one exchange that will leave in one frame."""

    __slots__ = ("_said", "_said_bytes")

    def __init__(self, where: Key, now_ms: int, plain_bytes: int = NOTHING_PLAIN) -> None:
        """Begin; what it says of all takes its part of what `plain_bytes` leaves for each."""
        super().__init__(where, now_ms, plain_bytes)
        _, _, exchange, routing_key, match, terms = where
        said = {"exchange": exchange, "routing_key": routing_key, "match": dict(match)}
        said |= zip(TERMS, terms, strict=False)
        self._said = {name: value for name, value in said.items() if value}
        self._said_bytes = len(wire.pack_header(self._said))
        if plain_bytes != NOTHING_PLAIN:
            self.plain_bytes -= self._said_bytes // GROUP_MESSAGES + 1

    def takes(self, count: int, cost: int, most_bytes: int) -> bool:
        """Return whether `count` messages of together `cost` bytes may be added to it."""
        return super().takes(count, cost + self._said_bytes, most_bytes)

    def part(self) -> tuple[dict[str, object], bytes, bytes]:
        """Return its part of a frame, which names the exchange."""
        part: dict[str, object] = {"op": "route", "count": self.count, **self._said}
        return part, self._columns(part), self._lengths()


def routed_of(result: Mapping[str, Any], runs: Sequence[Run], count: int) -> RoutedRun:
    """Return what the result of a part says of its `count` messages; `runs` are its entries of the run column."""
    names = result["queues"].split()
    queues = tuple(
        (name, origin, first)
        for name, (_, origin, first, _) in zip(names, runs[: len(names)], strict=True)
    )
    return RoutedRun(queues, count, result["durability"])
