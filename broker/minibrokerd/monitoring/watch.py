"""Looks at the queues every two seconds for as long as the broker runs, and gives what checks judge.

10,000 queues are looked at in steps between which the loop turns; of a queue in which nothing happened and nothing
waits, a step asks two things, which takes 2 us. Of more of them looks come less often, and take a fiftieth of the
loop at the most: of 100,000 every ten seconds.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Final

from minibrokerd import __version__
from minibrokerd.core.model.histogram import quantile
from minibrokerd.core.model.queues import Queue
from minibrokerd.log.reserve import reserve_of
from minibrokerd.monitoring.ages import oldest_of
from minibrokerd.monitoring.checks import CHECKS
from minibrokerd.monitoring.disk import free_share
from minibrokerd.monitoring.history import History
from minibrokerd.monitoring.portions import steps
from minibrokerd.monitoring.readings import Reading, Readings
from minibrokerd.monitoring.view import Phase, View
from minibrokerd.process import memory

EVERY_S: Final = 2.0
QUEUES_A_SECOND: Final = 10_000
WINDOW_S: Final = 300.0
WORST: Final = 5  # queues that a reading names
NO_SPACE: Final = (
    "publishes may be refused: the disk is full, or the reserve of the log is not whole"
)

Fits = Callable[[str], bool]


class Watch:
    """The watch over one broker."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._history = History(view.loop.time(), self._syncs)
        self._dead: dict[int, int] = {}  # of each queue, by its number: what its counter said
        self._without: dict[str, float] = {}  # queues that have no consumer, and since when
        self._task: asyncio.Task[None] | None = None
        self.after_look: Callable[[Mapping[str, int]], Awaitable[None]] | None = None

    @property
    def _syncs(self) -> list[int]:
        return self._view.engine.pulse.syncs_us.counts

    def start(self) -> None:
        """Look from now on."""
        self._task = self._view.loop.create_task(self._run())

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            dead = await self.look()
            if self.after_look is not None:
                await self.after_look(dead)
            await asyncio.sleep(rest_s(len(self._view.store.queues)))

    async def look(self) -> Mapping[str, int]:
        """Look at all queues once; return what died since the look before."""
        loop, died = self._view.loop, {}
        counted: dict[int, int] = {}
        without: dict[str, float] = {}
        for some in steps(list(self._view.store.queues.values())):
            for queue in some:
                count = queue.group.counters.get("dead_lettered", 0) if queue.group.counters else 0
                if count:
                    counted[queue.number] = count
                    if new := count - self._dead.get(queue.number, 0):
                        died[queue.name] = new
                if queue.group.lanes.ready and not queue.group.consumer_count and not queue.is_dlq:
                    without[queue.name] = self._without.get(queue.name, loop.time())
            await asyncio.sleep(0)
        self._dead, self._without = counted, without
        self._history.note(loop.time(), died, self._syncs)
        return died

    async def readings(
        self,
        window_s: float = WINDOW_S,
        fits: Fits = lambda name: True,
        names: Collection[str] = frozenset(CHECKS),
    ) -> Readings:
        """Return the numbers of these checks, of queues whose name fits."""
        view, now_s = self._view, self._view.loop.time()
        recent = self._history.within(window_s, now_s, self._syncs, fits)
        queues = 0
        oldest: dict[str, float] = {}
        if view.is_open:
            for some in steps(list(view.store.queues.values())):
                here = [queue for queue in some if fits(queue.name)]
                queues += len(here)
                if "oldest-ready" in names:
                    oldest.update(_ages(view, here))
                await asyncio.sleep(0)
        gone = {name: now_s - since for name, since in self._without.items() if fits(name)}
        unix_ms = view.engine.clock.unix_ms()
        made = [
            _worst("oldest-ready", oldest, unix_ms),
            Reading(
                "dead-letters",
                sum(recent.dead.values()) + recent.dead_elsewhere,
                _first(recent.dead),
                _unix_ms(unix_ms, now_s, recent.dead_since_s),
            ),
            _worst("consumers-gone", gone, unix_ms),
            _most("group-lag", self._lags(fits)),
            Reading("sync-p99", quantile(recent.syncs, 0.99) / 1_000_000),
            *self._of_process(),
        ]
        return Readings(
            __version__,
            view.phase.value,
            100 if view.is_open else view.log.recovered_percent,
            unix_ms,
            queues,
            round(min(recent.covers_s, window_s), 1),
            [reading for reading in made if reading.check in names],
        )

    def _lags(self, fits: Fits) -> dict[str, float]:
        logs = self._view.store.retained.logs.values()
        groups = (feeder for log in logs for feeder in log.feeders.values())
        return {each.queue.name: each.lag() for each in groups if fits(each.queue.name)}

    def _of_process(self) -> Iterator[Reading]:
        view = self._view
        share = free_share(view)
        if share is not None:
            trouble = NO_SPACE if reserve_of(view.log).lacks_space else ""
            yield Reading("disk-free", round(100 * share, 2), trouble=trouble)
        limit = view.memory_limit_bytes
        if limit:
            yield Reading("memory", round(100 * memory.resident_bytes() / limit, 2))
        most = view.connections.most
        if most:
            yield Reading("connections", round(100 * len(view.connections) / most, 2))
        since = view.engine.clock.unix_ms() / 1_000 - view.started_unix
        yield Reading("starting", since if view.phase is Phase.RECOVERING else 0)


def rest_s(queues: int) -> float:
    """Return how long to wait after a look at so many queues."""
    return max(EVERY_S, queues / QUEUES_A_SECOND)


def _ages(view: View, queues: list[Queue]) -> Iterator[tuple[str, float]]:
    return (
        (queue.name, oldest_of(view, queue) / 1_000)
        for queue in queues
        if queue.group.lanes.ready and not queue.is_dlq
    )


def _first(values: Mapping[str, float]) -> dict[str, float]:
    names = heapq.nsmallest(WORST, values, key=lambda name: (-values[name], name))
    return {name: values[name] for name in names}


def _worst(check: str, ages: Mapping[str, float], unix_ms: int) -> Reading:
    worst = {name: round(age, 3) for name, age in _first(ages).items()}
    value = max(worst.values(), default=0)
    return Reading(check, value, worst, unix_ms - round(value * 1_000) if worst else 0)


def _most(check: str, counts: Mapping[str, float]) -> Reading:
    some = _first({name: count for name, count in counts.items() if count})
    return Reading(check, max(some.values(), default=0), some)


def _unix_ms(unix_ms: int, now_s: float, at_s: float | None) -> int:
    return 0 if at_s is None else unix_ms - round((now_s - at_s) * 1_000)
