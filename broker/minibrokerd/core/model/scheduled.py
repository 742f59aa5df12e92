"""Schedules: a job that is published whenever a calendar is due, and which instant of it comes next.

What a schedule is stands in one entry of what is kept (kept.py), with the next instant: a job and the entry that
names the instant behind it are written in one batch, so each instant has one job, whenever the server was killed.
Instants are of the wall clock. What a calendar is comes from outside: the core knows no cron and no zones.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from minibrokerd.core.model.kept import SCHEDULE

if TYPE_CHECKING:
    from minibrokerd.core.model.state import Store
    from minibrokerd.core.model.wheel import Timer

GRACE_MS: Final = 60_000  # so much later than its instant a job of `skip` is still published
# What becomes of an instant; `duplicate`: another message had the unique key of the job.
PUBLISHED, DUPLICATE, SKIPPED, BY_HAND = OUTCOMES = "published", "duplicate", "skipped", "by_hand"
MOST_MISSED: Final = 1_000  # jobs of `all`, one after the other, that are published late
FUTURE: Final = 2**53  # a time in ms that never comes


class Calendar(Protocol):
    """When something is due."""

    def after(self, unix_ms: int) -> int | None:
        """Return the first instant behind `unix_ms`, in ms; None: there is none."""
        ...


# Makes one of an expression and the name of a zone; ValueError says why it cannot.
CalendarOf = Callable[[str, str], Calendar]


def no_calendars(expression: str, zone: str) -> Calendar:
    """Raise ValueError: this core only replays a log."""
    raise ValueError("there are no calendars here")


class Definition(msgspec.Struct, frozen=True):
    """What a schedule was asked for, beside the content of its job; a map, so that more may be added."""

    queue: str
    cron: str
    zone: str
    misfire: str
    encoding: int
    terms: dict[str, int | str]


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Definition).decode


class Plan(NamedTuple):
    """What is to be done about a schedule that is due.

    `instant`: publish its job for this one; None: for none. `next`: what comes behind; FUTURE: nothing. `missed`:
    whether instants are left out.
    """

    instant: int | None
    next: int
    missed: bool


class Schedule:
    """One schedule; `content` has the headers and the body of its job, as a column of the wire."""

    __slots__ = (
        "_calendar",
        "content",
        "definition",
        "last_unix_ms",
        "late",
        "name",
        "next_unix_ms",
        "paused",
        "waits",
    )

    def __init__(self, name: str, definition: Definition, content: bytes) -> None:
        self.name = name
        self.definition = definition
        self.content = content
        self.next_unix_ms = FUTURE
        self.last_unix_ms = 0  # the instant of the newest job; 0: there was none
        self.paused = False
        self.late = 0  # jobs in a row that were published late
        self.waits = ""  # why its job is not published, which is due
        self._calendar: Calendar | None = None

    def value(self) -> tuple[int | bytes, ...]:
        """Return what its entry has."""
        flags = int(self.paused)
        packed = _pack(self.definition)
        return packed, self.content, self.next_unix_ms, self.last_unix_ms, flags, self.late

    def calendar(self, make: CalendarOf) -> Calendar:
        """Return its calendar; ValueError where there is none (any more)."""
        if self._calendar is None:
            self._calendar = make(self.definition.cron, self.definition.zone)
        return self._calendar


def schedule_of(name: str, value: tuple[Any, ...]) -> Schedule:
    """Return a schedule as its entry has it; ValueError if it cannot be understood."""
    packed, content, next_unix_ms, last_unix_ms, flags, late = value
    try:
        definition = _unpack(packed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the second is none of the first
        raise ValueError(f"the schedule {name!r:.200} cannot be read: {error}") from error
    schedule = Schedule(name, definition, content)
    schedule.next_unix_ms, schedule.last_unix_ms = next_unix_ms, last_unix_ms
    schedule.paused, schedule.late = bool(flags & 1), late
    return schedule


class Schedules:
    """All schedules by name, and which is due next."""

    __slots__ = ("_heap", "by_name", "counted", "is_firing", "last_batch", "misfires", "timer")

    def __init__(self) -> None:
        self.by_name: dict[str, Schedule] = {}
        self._heap: list[
            tuple[int, str]
        ] = []  # of those that are not paused; what is over is passed over
        self.is_firing = False  # a job of the store is publishing what is due
        self.last_batch = 0  # has the newest record of any
        self.counted = dict.fromkeys(OUTCOMES, 0)  # instants by what became of them, in this run
        self.misfires = 0  # how often some had passed that got no job
        self.timer: Timer | None = None  # looks at what is due

    def opened(self, store: Store) -> None:
        """Take up what stands after a replay; ValueError if it cannot be understood."""
        for entry in store.kept.of(SCHEDULE):
            self.enter(schedule_of(str(entry.key[0]), entry.value))

    def put(self, store: Store, schedule: Schedule) -> None:
        """Let a schedule stand as it is now, over a restart, too."""
        store.kept.put(store, SCHEDULE, (schedule.name,), schedule.value())
        self.last_batch = store.open_batch
        self.enter(schedule)

    def enter(self, schedule: Schedule, at_unix_ms: int | None = None) -> None:
        """Let a schedule be looked at when it is due next; or at another time, as nothing could be published."""
        self.by_name[schedule.name] = schedule
        if not schedule.paused and schedule.next_unix_ms < FUTURE:
            heappush(self._heap, (at_unix_ms or schedule.next_unix_ms, schedule.name))
        if len(self._heap) > 2 * len(self.by_name) + 100:
            self._sweep()

    def end(self, store: Store, schedule: Schedule) -> None:
        """Let a schedule stand no more."""
        del self.by_name[schedule.name]
        store.kept.end(store, SCHEDULE, (schedule.name,))
        self.last_batch = store.open_batch

    def next_unix_ms(self) -> int | None:
        """Return when to look; None: nothing is due at any time."""
        return self._heap[0][0] if self._heap else None

    def next_due(self, unix_ms: int) -> Schedule | None:
        """Return what `take_due` may take next; None: nothing is due."""
        if not self._heap or self._heap[0][0] > unix_ms:
            return None
        return self.by_name.get(self._heap[0][1])

    def take_due(self, unix_ms: int) -> Schedule | None:
        """Take out and return a schedule that is due; None: none is by now."""
        while self._heap and self._heap[0][0] <= unix_ms:
            _, name = heappop(self._heap)
            schedule = self.by_name.get(name)
            if schedule is not None and not schedule.paused and schedule.next_unix_ms <= unix_ms:
                return schedule
        return None

    def _sweep(self) -> None:
        """Forget what was entered for times that do not hold any more."""
        self._heap = []
        for schedule in self.by_name.values():
            if not schedule.paused and schedule.next_unix_ms < FUTURE:
                heappush(self._heap, (schedule.next_unix_ms, schedule.name))


def plan_of(schedule: Schedule, calendar: Calendar, unix_ms: int) -> Plan:
    """Return what is to be done about a schedule that is due by now.

    Of several instants that have passed, all but the last one were missed: `all` has each of them made up for, one
    at a time and at most MOST_MISSED in a row, the others leave them out. The last one is published however late
    it is; `skip` leaves it out, too, when it is GRACE_MS ago.
    """
    instant = schedule.next_unix_ms
    behind = calendar.after(instant)
    is_last = behind is None or behind > unix_ms
    misfire = schedule.definition.misfire
    missed = False
    if not is_last and not (misfire == "all" and schedule.late < MOST_MISSED):
        instant, missed = _last_up_to(calendar, instant, unix_ms), True
        behind = calendar.after(instant)
    if misfire == "skip" and unix_ms - instant > GRACE_MS:
        return Plan(None, behind or FUTURE, True)
    return Plan(instant, behind or FUTURE, missed)


def _last_up_to(calendar: Calendar, low: int, unix_ms: int) -> int:
    """Return the last instant up to a time; `low` is one of them.

    What comes behind a time never comes earlier for a later time: so it is halved, whatever the calendar is like
    (a year of seconds is 31 million instants, and 35 questions).
    """
    found, high = low, unix_ms  # `found` is an instant, and no instant lies in (high, unix_ms]
    while found < high:
        middle = (found + high) // 2
        behind = calendar.after(middle)
        if behind is None or behind > unix_ms:
            high = middle
        else:
            found = behind
    return found
