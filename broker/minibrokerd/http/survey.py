"""What all queues come to, and lists of them. A look at 10,000 queues takes milliseconds: it is taken in steps."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from operator import itemgetter
from typing import Final

from minibroker.contract.limits import DLQ_SUFFIX
from minibroker.contract.metrics import METRICS
from minibrokerd import __version__
from minibrokerd.core.model.histogram import quantile
from minibrokerd.core.model.pauses import QUEUE
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.times import p95_of
from minibrokerd.http.requests import whole
from minibrokerd.http.shapes import LogView, Overview, QueueRow
from minibrokerd.http.subject import Subject
from minibrokerd.log.reserve import reserve_of
from minibrokerd.monitoring.ages import OLDEST_LANES, oldest_of
from minibrokerd.monitoring.disk import file_system
from minibrokerd.monitoring.portions import steps
from minibrokerd.process import memory

STEP_ROWS: Final = 100  # of which every number is looked at
ALWAYS_MS: Final = 2**62  # later than any time of the log
FRESH_S: Final = 0.9  # several pages that look share one look
STATES: Final = ("ready", "delayed", "held", "begun")
COUNTED: Final = ("published", "delivered", "acked", "failed", "dead_lettered")
SORTS: Final = ("name", "oldest", *METRICS)


class Survey:
    """Sums over all queues of one broker."""

    def __init__(self, subject: Subject, *, can_change: Callable[[], bool]) -> None:
        self._subject = subject
        self._can_change = can_change
        self._taken_s = 0.0
        self._sums: dict[str, int] = {}
        self._oldest_ms = 0
        self._names: list[str] = []
        self._named = 0, 0

    def names(self) -> list[str]:
        """Return the names of all queues, in order; they are sorted when a queue has come or gone since."""
        store = self._subject.store
        now = len(store.queues), store.next_queue_number
        if now != self._named:
            self._names, self._named = sorted(store.queues), now
        return self._names

    @property
    def can_change(self) -> bool:
        """Whether there is a token for changes at this moment."""
        return self._can_change()

    async def overview(self) -> Overview:
        """Return the broker in numbers; the sums are at most a second old."""
        subject, core = self._subject, self._subject.core
        if subject.is_open:
            await self._look()
        return Overview(
            version=__version__,
            phase=subject.phase.value,
            now_unix_ms=subject.engine.clock.unix_ms(),
            started_unix_ms=round(subject.started_unix * 1_000),
            recovered_percent=100 if subject.is_open else subject.log.recovered_percent,
            recovered_ms=subject.recovered_ms,
            queues=len(subject.store.queues),
            messages={name: self._sums.get(name, 0) for name in STATES},
            counted={name: self._sums.get(name, 0) for name in COUNTED},
            oldest_ready_ms=self._oldest_ms,
            sessions=len(subject.store.sessions),
            connections=len(subject.connections),
            connections_limit=subject.connections.most,
            memory_bytes=core.memory_bytes(),
            resident_bytes=memory.resident_bytes(),
            memory_limit_bytes=subject.memory_limit_bytes,
            log=log_view(subject),
            can_change=self.can_change,
        )

    async def _look(self) -> None:
        loop = self._subject.loop
        if loop.time() - self._taken_s < FRESH_S:
            return
        self._taken_s = loop.time()
        sums, oldest_ms = dict.fromkeys((*STATES, *COUNTED), 0), 0
        for some in steps(list(self._subject.store.queues.values())):
            sums["ready"] += sum([queue.group.lanes.ready + queue.group.entering for queue in some])
            sums["delayed"] += sum([queue.group.delayed_count for queue in some])
            sums["held"] += sum([queue.group.held for queue in some])
            sums["begun"] += sum([queue.group.begun for queue in some])
            for name in COUNTED:
                sums[name] += sum([queue.group.counters.get(name, 0) for queue in some])
            for queue in some:
                if queue.group.lanes.ready and not queue.is_dlq:
                    oldest_ms = max(oldest_ms, oldest_of(self._subject, queue))
            await asyncio.sleep(0)
        self._sums, self._oldest_ms = sums, oldest_ms


async def listed(
    subject: Subject, *, match: str, sort: str, after: str, count: int, dlqs: bool
) -> tuple[list[Queue], int, str]:
    """Return up to `count` queues behind `after`, how many fit in all, and where the rest begins; empty: none.

    By name, or by a number of `stats`, or `oldest`: largest first, and equal ones by name. `after` is where a page
    ended, not which queue was its last: that one may have gone, or have another number.

    Raises:
        ValueError: `after` is no place in a list by that number.
    """
    assert subject.survey is not None
    queues, names = subject.store.queues, subject.survey.names()
    if match or not dlqs:
        fitting: list[str] = []
        for some in steps(names):
            fitting += [
                name for name in some if _fits(name, match) and (dlqs or not _is_dlq(queues, name))
            ]
            await asyncio.sleep(0)
        names = fitting
    if sort == "name":
        # Behind a name that has gone meanwhile, too: whoever pages sees every other queue, and none twice.
        start = bisect_right(names, after) if after else 0
        page = names[start : start + count]
        then = page[-1] if page and start + count < len(names) else ""
        return [queues[name] for name in page if name in queues], len(names), then
    place = _place(after) if after else None
    found = await _largest_first([queues[name] for name in names if name in queues], sort)
    start = bisect_right(found, place, key=_place_of) if place else 0
    rows = found[start : start + count]
    then = f"{rows[-1][0]}:{rows[-1][1].name}" if rows and start + count < len(found) else ""
    return [queue for _, queue in rows], len(found), then


def _place_of(row: tuple[int, Queue]) -> tuple[int, str]:
    return -row[0], row[1].name


def _place(after: str) -> tuple[int, str]:
    text, _, name = after.partition(":")
    number = whole(text)
    if number is None or not name:
        raise ValueError(f"after is {after!r:.100}; it must be the `next` of the page before")
    return -number, name


async def _largest_first(queues: list[Queue], sort: str) -> list[tuple[int, Queue]]:
    """Return queues by a number, and that; those that are equal stay as they are."""
    pairs: list[tuple[int, Queue]] = []
    for some in steps(queues, STEP_ROWS):
        pairs += [
            (_seniority(queue) if sort == "oldest" else value_of(queue, sort), queue)
            for queue in some
        ]
        await asyncio.sleep(0)
    pairs.sort(key=itemgetter(0), reverse=True)
    return pairs


def _seniority(queue: Queue) -> int:
    """Return a number that is larger the longer the oldest ready message waits, and stays while it does."""
    since_ms = queue.group.lanes.oldest_ms(OLDEST_LANES)
    return 0 if since_ms is None else ALWAYS_MS - since_ms


def _is_dlq(queues: Mapping[str, Queue], name: str) -> bool:
    return name in queues and queues[name].is_dlq


def _fits(name: str, match: str) -> bool:
    if not match:
        return True
    return fnmatchcase(name, match) if set(match) & set("*?[") else match in name


def value_of(queue: Queue, name: str) -> int:
    """Return one number of a queue."""
    return queue.statistics()[name]


def row_of(subject: Subject, queue: Queue) -> QueueRow:
    """Return a queue as a row of a list."""
    wait_ms, run_ms = p95_of(queue.group.times, subject.engine.clock.now_ms())
    oldest_ms = oldest_of(subject, queue)
    counts, rest = queue.statistics(), rest_of(subject, queue)
    return QueueRow(queue.name, queue.is_dlq, oldest_ms, counts, wait_ms, run_ms, *rest)


def rest_of(subject: Subject, queue: Queue) -> tuple[bool, int]:
    """Return whether a queue is paused, and when that ends by itself; 0: it does not."""
    pause = subject.store.pauses.get((QUEUE, queue.number, "")) if queue.group.paused else None
    return queue.group.paused, 0 if pause is None else pause.until_unix_ms


async def rows_of(subject: Subject, queues: list[Queue]) -> list[QueueRow]:
    """Return queues as rows of a list; the loop turns meanwhile."""
    rows: list[QueueRow] = []
    for some in steps(queues, STEP_ROWS):
        rows += [row_of(subject, queue) for queue in some]
        await asyncio.sleep(0)
    return rows


def dlq_of(subject: Subject, queue: Queue) -> str:
    """Return the name of the dead-letter queue of a queue; empty: there is none yet."""
    name = queue.name + DLQ_SUFFIX
    return name if name in subject.store.queues else ""


def log_view(subject: Subject) -> LogView:
    """Return the log and its disk."""
    log, pulse = subject.log, subject.engine.pulse
    reserve = reserve_of(log)
    return LogView(
        disk_bytes=log.disk_bytes if subject.is_open else 0,
        live_bytes=subject.store.live_bytes(),
        segment_bytes=log.segment_bytes,
        segments=round(log.disk_bytes / (log.segment_bytes or 1)) if subject.is_open else 0,
        reserve_segments=reserve.reserve_segments,
        lacks_space=reserve.lacks_space,
        written_bytes=subject.engine.others_bytes,
        free_bytes=_free_bytes(subject),
        batches=pulse.syncs_us.count,
        sync_p50_ms=round(quantile(pulse.syncs_us.counts, 0.5) / 1_000, 3),
        sync_p99_ms=round(quantile(pulse.syncs_us.counts, 0.99) / 1_000, 3),
    )


def _free_bytes(subject: Subject) -> int:
    found = file_system(subject)
    return -1 if found is None else found.f_bavail * found.f_frsize
