"""Totals of sessions and of consumers, in a bounded number of lines: clients come and go, and scrapers keep all.

Of each kind the oldest are shown one by one, and all others together, as `others`. The oldest stay the same from
scrape to scrape, the busiest would not. Of the others only what they did between two scrapes is added, so that the
line of their total never falls when one of them ends.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import Final

from minibrokerd.monitoring.view import View

MOST_SESSIONS: Final = 100
MOST_CONSUMERS: Final = 200
STEP: Final = 1_000  # sessions or connections without a turn of the loop
OTHERS: Final = "others"

Labels = tuple[tuple[str, str], ...]
SESSION_LABELS: Final = ("session", "client")
CONSUMER_LABELS: Final = ("session", "client", "consumer", "queue")
SESSION_COUNTS: Final = ("published", "delivered", "acked", "holds")
CONSUMER_COUNTS: Final = ("delivered", "outstanding", "prefetch")
GAUGES: Final = frozenset({"holds", "outstanding", "prefetch"})


class Totals:
    """Numbers of things of one kind, as one look found them; `begin`, a `note` for each of them, `end`."""

    def __init__(self, most: int, labels: Sequence[str], counts: Sequence[str]) -> None:
        """`counts` name the numbers of each `note`; those in GAUGES may fall."""
        self._most = most
        self._labels = labels
        self._counts = counts
        self._shown: list[tuple[Labels, Sequence[int]]] = []
        self._others = [0] * len(counts)
        self._known: dict[Hashable, Sequence[int]] = {}  # of those left out, at the look before
        self.left_out = 0
        self.begin()

    def begin(self) -> None:
        """Begin a look."""
        self._now_shown: list[tuple[Labels, Sequence[int]]] = []
        self._now_known: dict[Hashable, Sequence[int]] = {}

    def note(self, key: Hashable, labels: Sequence[str], numbers: Sequence[int]) -> None:
        """Take the numbers of one thing; those that are older come before."""
        if len(self._now_shown) < self._most:
            self._now_shown.append((tuple(zip(self._labels, labels, strict=True)), numbers))
        else:
            self._now_known[key] = numbers

    def end(self) -> None:
        """Let what was noted be what is shown."""
        nothing = [0] * len(self._counts)
        for at, name in enumerate(self._counts):
            if name in GAUGES:
                self._others[at] = 0
            for key, numbers in self._now_known.items():
                before = 0 if name in GAUGES else self._known.get(key, nothing)[at]
                self._others[at] += numbers[at] - before
        self._shown, self._known = self._now_shown, self._now_known
        self.left_out = len(self._known)
        self.begin()

    def of(self, name: str) -> Iterator[tuple[Labels, float]]:
        """Yield one of the numbers of each that is shown, then that of the others, if there were any."""
        at = self._counts.index(name)
        for labels, numbers in self._shown:
            yield labels, numbers[at]
        if self.left_out or any(self._others):
            first, *rest = self._labels
            yield ((first, OTHERS), *((label, "") for label in rest)), self._others[at]


class Talkers:
    """The totals of one broker."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._looking = asyncio.Lock()
        self.sessions = Totals(MOST_SESSIONS, SESSION_LABELS, SESSION_COUNTS)
        self.consumers = Totals(MOST_CONSUMERS, CONSUMER_LABELS, CONSUMER_COUNTS)
        # For how long the consumers of each queue, by its number, are there, and had nothing: ms of all of them.
        self.there_ms: dict[int, int] = {}
        self.idle_ms: dict[int, int] = {}

    async def look(self) -> None:
        """Look at all sessions and consumers, in steps between which the loop turns."""
        async with self._looking:
            await self._look_at_sessions()
            await self._look_at_consumers()

    async def _look_at_sessions(self) -> None:
        for at, session in enumerate(list(self._view.store.sessions.values()), 1):
            numbers = session.published, session.delivered, session.acked, len(session.deliveries)
            self.sessions.note(session.id, (str(session.id), session.client), numbers)
            if not at % STEP:
                await asyncio.sleep(0)
        self.sessions.end()

    async def _look_at_consumers(self) -> None:
        store = self._view.store
        queues, now_ms = store.by_number, store.now_ms
        there_ms: dict[int, int] = defaultdict(int)
        idle_ms: dict[int, int] = defaultdict(int)
        for at, connection in enumerate(list(store.connections.values()), 1):
            who = str(connection.session.id), connection.session.client
            for number, each in connection.consumers.items():
                queue = queues.get(each.queue_number)
                name = queue.name if queue is not None else ""
                there_ms[each.queue_number] += max(now_ms - each.since_ms, 0)
                idle_ms[each.queue_number] += max(each.idle_for_ms(now_ms), 0)
                counts = each.delivered, each.outstanding, each.prefetch
                self.consumers.note((connection.id, number), (*who, str(number), name), counts)
            if not at % STEP:
                await asyncio.sleep(0)
        self.consumers.end()
        self.there_ms, self.idle_ms = there_ms, idle_ms
