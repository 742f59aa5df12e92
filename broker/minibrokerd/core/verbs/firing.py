"""What is due is published: the job of a schedule, and the entry that names its next instant, in one batch.

One timer looks after all schedules. It looks at least every LOOK_MS, for the wall clock may be set forward; set
back, it finds that nothing is due. Each step of the work publishes one job. One that cannot be published, as its
queue is full or there is no room, stays due and is tried again; what passes meanwhile is as after a stop.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

import msgspec

from minibroker.contract import wire
from minibroker.contract.commands import COMMANDS, Kind
from minibrokerd.core.model.inputs import Frame, Slice
from minibrokerd.core.model.records import TYPE_OF, PublishMeta
from minibrokerd.core.model.refusals import Refused
from minibrokerd.core.model.scheduled import (
    DUPLICATE,
    FUTURE,
    PUBLISHED,
    SKIPPED,
    Schedule,
    plan_of,
)
from minibrokerd.core.model.sessions import Result
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import Timer
from minibrokerd.core.verbs.publishing import Publishing, check_publish, publish
from minibrokerd.core.verbs.uniqueness import DUPLICATE as KNOWN
from minibrokerd.core.verbs.uniqueness import EACH_BYTES, HOW_SHIFT, REPLACED_BYTES
from minibrokerd.log.seam import Record
from minibrokerd.log.sizes import PUBLISH_OVERHEAD_BYTES

UNIQUE_KEY: Final = "unique_key"  # a term of a job, which is a column of other publishes
LOOK_MS: Final = 10_000
AGAIN_MS: Final = 1_000  # after a job could not be published
NO_ROOM: Final = "no room on the disk or in memory"
NAME_HEADER: Final = "minibroker-schedule"
DUE_HEADER: Final = "minibroker-due-unix-ms"
HEADERS_BYTES: Final = 256  # that these add to a job, at the most
_DEFAULTS: Final = {
    field.name: [] if field.kind is Kind.NAMES else field.default
    for field in COMMANDS["publish"].fields
}


def watch(store: Store) -> None:
    """Look at what is due when it is, and every now and then."""
    schedules = store.schedules
    if schedules.is_firing or (at_unix_ms := schedules.next_unix_ms()) is None:
        return
    until_ms = store.now_ms + min(max(at_unix_ms - store.unix_ms, 0), LOOK_MS)
    if schedules.timer is not None:
        store.wheel.cancel(schedules.timer)
    schedules.timer = store.set_timer(_look, None, until_ms)


def _look(store: Store, timer: Timer, argument: None) -> None:
    at_unix_ms = store.schedules.next_unix_ms()
    if at_unix_ms is None or at_unix_ms > store.unix_ms:
        watch(store)
        return
    store.schedules.is_firing = True
    store.jobs.append(lambda: _step(store))


def _step(store: Store) -> bool:
    """Publish one job that is due; True: none is left."""
    schedule = store.schedules.take_due(store.unix_ms)
    if schedule is None:
        store.schedules.is_firing = False
        watch(store)
        return True
    _fire(store, schedule)
    return False


def _fire(store: Store, schedule: Schedule) -> None:
    try:
        plan = plan_of(schedule, schedule.calendar(store.calendar_of), store.unix_ms)
    except ValueError as error:  # its zone is not in the database any more
        _give_up(store, schedule, str(error))
        return
    late_ms = store.unix_ms - schedule.next_unix_ms
    if plan.instant is not None:
        if not store.has_room:
            _wait(store, schedule, NO_ROOM)
            return
        try:
            is_there = publish_job(store, schedule, plan.instant)[1]
        except Refused as error:
            _wait(store, schedule, str(error))
            return
        store.schedules.counted[DUPLICATE if is_there else PUBLISHED] += 1
        schedule.last_unix_ms = plan.instant
        is_late = plan.next <= store.unix_ms and not plan.missed
        schedule.late = schedule.late + 1 if is_late else 0
    else:
        store.schedules.counted[SKIPPED] += 1
    schedule.waits = ""
    schedule.next_unix_ms = plan.next
    if plan.missed:
        store.schedules.misfires += 1
        store.effects.note(
            "schedule_missed", schedule=schedule.name, queue=schedule.definition.queue, ms=late_ms
        )
    store.schedules.put(store, schedule)


def _wait(store: Store, schedule: Schedule, why: str) -> None:
    """Try again in a moment: nothing was changed."""
    if schedule.waits != why:
        schedule.waits = why
        store.effects.note(
            "schedule_waits", schedule=schedule.name, queue=schedule.definition.queue, text=why
        )
    store.schedules.enter(schedule, store.unix_ms + AGAIN_MS)


def _give_up(store: Store, schedule: Schedule, why: str) -> None:
    schedule.waits = why
    schedule.next_unix_ms = FUTURE
    store.schedules.put(store, schedule)
    store.effects.note(
        "schedule_waits", schedule=schedule.name, queue=schedule.definition.queue, text=why
    )


def publish_job(store: Store, schedule: Schedule, instant_unix_ms: int) -> tuple[Result, bool]:
    """Publish the job of a schedule for an instant; what is recorded next stands in the same batch.

    Returns what a confirm says, and whether nothing was stored, as another message has its unique key: its id.

    Raises:
        Refused: its queue takes nothing now; nothing was changed.
    """
    work = job_of(store, schedule, instant_unix_ms)
    store.keep_together(bytes_of(schedule))
    result, runs, _ = publish(work)
    is_there = bool(runs) and runs[0][0] >> HOW_SHIFT == KNOWN
    if is_there:
        _, result["origin"], result["first"], _ = runs[0]
    return result, is_there


def bytes_of(schedule: Schedule) -> int:
    """Return how many bytes of a batch a job takes at the most, with all that stands beside it."""
    unique = EACH_BYTES + REPLACED_BYTES if schedule.definition.terms.get(UNIQUE_KEY) else 0
    return 2 * PUBLISH_OVERHEAD_BYTES + 2 * room_of(schedule) + unique


def room_of(schedule: Schedule) -> int:
    """Return how many bytes the record of a job takes at the most, and that of the schedule, too."""
    definition = schedule.definition
    texts = (schedule.name, definition.queue, definition.cron, definition.zone)
    size = sum(len(text.encode()) for text in texts) + HEADERS_BYTES
    size += sum(len(str(item)) * 4 + 16 for pair in definition.terms.items() for item in pair)
    return size + len(schedule.content) + PUBLISH_OVERHEAD_BYTES


def job_of(store: Store, schedule: Schedule, instant_unix_ms: int) -> Publishing:
    """Return the checked publish of one job.

    Raises:
        Refused: its queue takes nothing now.
    """
    definition = schedule.definition
    (headers, body), _ = wire.unpack_strings(schedule.content, 2)
    headers = _headers(headers, schedule.name, instant_unix_ms)
    lengths = len(headers).to_bytes(4, "little") + len(body).to_bytes(4, "little")
    unique = str(definition.terms.get(UNIQUE_KEY, ""))
    columns = wire.pack_strings([unique.encode()]) if unique else b""
    bins = (
        *(wire.bin_head(len(columns)), columns, wire.bin_head(8), lengths),
        wire.bin_head(len(headers) + len(body)),
    )
    tail = b"".join((*bins, headers, body))
    extent = store.bodies.extent(Record(TYPE_OF[PublishMeta], b"", tail), 0)
    fields: dict[str, Any] = {"queue": definition.queue, "count": 1}
    fields |= {"encoding": definition.encoding, "columns": [UNIQUE_KEY] if unique else []}
    part: Any = SimpleNamespace(**(_DEFAULTS | definition.terms | fields))
    own = Slice(memoryview(columns), extent, len(tail))
    # A frame without parts is nobody's: no session has its outcome.
    return check_publish(store, Frame(0, (), memoryview(b"")), part, own, None)


def _headers(packed: bytes, name: str, instant_unix_ms: int) -> bytes:
    """Return headers of a job that say which schedule it is of, and for which instant."""
    headers: dict[str, Any] = msgspec.msgpack.decode(packed) if packed else {}
    return msgspec.msgpack.encode(headers | {NAME_HEADER: name, DUE_HEADER: instant_unix_ms})
