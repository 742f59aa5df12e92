"""Requests about schedules: set, show, delete, pause, run now. What is due is published by `firing`.

A name is one of the whole server. Whose it is, is a matter of its queue: a connection that may not touch that one
finds no such schedule.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from minibroker.contract import limits, wire
from minibroker.contract.commands import COMMANDS, Kind
from minibroker.contract.errors import ProtocolError
from minibroker.contract.fields import text as text_field
from minibroker.contract.schedule_commands import MISFIRES
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.refusals import Broken, Refused, check_name, check_space
from minibrokerd.core.model.scheduled import BY_HAND, FUTURE, Definition, Schedule
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.firing import UNIQUE_KEY, bytes_of, job_of, publish_job, room_of, watch

SHOWN_BYTES: Final = limits.DELIVERY_BYTES  # of one page, about
_OWN: Final = ("queue", "count", "encoding", "columns")  # of a publish: no terms
_TERMS: Final = {
    field.name: field for field in COMMANDS["publish"].fields if field.name not in _OWN
} | {UNIQUE_KEY: text_field(UNIQUE_KEY, limits.MAX_KEY_BYTES, "One job of this key at a time.")}
_read_headers = msgspec.msgpack.Decoder(dict[str, Any]).decode


def schedule_set(store: Store, frame: Frame, part: Any) -> None:
    """Have a job published by a calendar, or change the schedule of that name."""
    check_name(part.name)
    if part.queue.endswith(limits.DLQ_SUFFIX):
        raise Refused(
            "bad_name", f"{part.queue!r:.200} is a dead-letter queue; publish to its source"
        )
    if part.misfire not in MISFIRES:
        raise Refused(
            "bad_value", f"misfire is {part.misfire!r:.40}, none of {', '.join(MISFIRES)}"
        )
    _check_terms(part.terms)
    content = _content(frame)
    definition = Definition(
        part.queue, part.cron, part.zone, part.misfire, part.encoding, part.terms
    )
    schedule = Schedule(part.name, definition, content)
    try:
        calendar = schedule.calendar(store.calendar_of)
    except ValueError as error:
        raise Refused("bad_value", str(error)) from error
    old = _known(store, frame, part.name)
    if old is None:
        _check_new(store, part.name)
    if bytes_of(schedule) > store.sizes.apply_bytes:
        raise Refused("too_large", "a job so large does not fit into a segment with its schedule")
    if part.queue not in store.queues:
        job_of(store, schedule, store.unix_ms)  # refused where its queue may not be made
        store.queue_or_new(part.queue)
    if old is not None:
        schedule.last_unix_ms, schedule.paused = old.last_unix_ms, old.paused
        if _when(old) == _when(schedule):
            schedule.next_unix_ms, schedule.late = old.next_unix_ms, old.late
    if schedule.next_unix_ms == FUTURE:
        schedule.next_unix_ms = calendar.after(store.unix_ms) or FUTURE
    if old is None or old.value() != schedule.value():
        store.schedules.put(store, schedule)
        _note(store, frame, "schedule_set", schedule, cron=part.cron, zone=part.zone)
        watch(store)
    _reply(store, frame, _shown(schedule) | {"created": int(old is None)})


def _when(schedule: Schedule) -> tuple[str, str]:
    return schedule.definition.cron, schedule.definition.zone


def _check_new(store: Store, name: str) -> None:
    if name in store.schedules.by_name:  # and out of the reach of this connection
        raise Refused(
            "not_allowed", f"the schedule {name!r} is of a queue that this token is not for"
        )
    if len(store.schedules.by_name) >= limits.MAX_SCHEDULES:
        text = f"this server has {limits.MAX_SCHEDULES} schedules, as many as it can; delete some"
        raise Refused("limit_reached", text)


def _check_terms(terms: dict[str, int | str]) -> None:
    for name, value in terms.items():
        row = _TERMS.get(name)
        if row is None:
            raise Refused("bad_value", f"{name!r:.100} is none of {', '.join(_TERMS)}")
        is_text = row.kind is Kind.STR
        size = len(str(value).encode()) if is_text else value
        if is_text != isinstance(value, str) or not 0 <= int(size) <= row.high:
            raise Refused("bad_value", f"{name} of a schedule is {value!r:.100}; see publish")


def _content(frame: Frame) -> bytes:
    content = bytes(frame.columns)
    try:
        (headers, _), end = wire.unpack_strings(content, 2)
    except ProtocolError as error:
        raise Broken(f"the column of a schedule is wrong: {error}") from error
    if end != len(content):
        raise Broken(f"the column of a schedule has {len(content)} bytes, {end} are accounted for")
    if end > limits.MAX_SCHEDULE_BYTES:
        text = f"the job of a schedule has {end} bytes, and {limits.MAX_SCHEDULE_BYTES} are allowed"
        raise Refused("too_large", f"{text}; store the data elsewhere and publish its place")
    if headers:
        try:
            _read_headers(headers)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            text = f"headers of a schedule must be a msgpack map with str keys: {error}"
            raise Refused("bad_value", text) from error
    return content


def schedules(store: Store, frame: Frame, part: Any) -> None:
    """Show schedules, by their names."""
    if part.name:
        _reply(store, frame, {"schedules": [_shown(_named(store, frame, part.name))]})
        return
    most = part.count or limits.MAX_SCHEDULES_SHOWN
    names = sorted(name for name in store.schedules.by_name if name > part.after)
    found: list[dict[str, Any]] = []
    value: dict[str, Any] = {"schedules": found}
    size = 0
    for name in names:
        schedule = _known(store, frame, name)
        if schedule is None:
            continue
        if len(found) == most or size > SHOWN_BYTES:
            value["next"] = found[-1]["name"]
            break
        found.append(_shown(schedule))
        size += room_of(schedule)
    _reply(store, frame, value)


def schedule_delete(store: Store, frame: Frame, part: Any) -> None:
    """End a schedule."""
    schedule = _known(store, frame, part.name)
    if schedule is not None:
        store.schedules.end(store, schedule)
        _note(store, frame, "schedule_deleted", schedule)
    _reply(store, frame, {"deleted": int(schedule is not None)})


def schedule_pause(store: Store, frame: Frame, part: Any) -> None:
    """Let a schedule rest, or go on with what is due next: what was due meanwhile is left out."""
    schedule = _named(store, frame, part.name)
    paused = bool(part.paused)
    if schedule.paused != paused:
        check_space(short=store.short)
        schedule.paused, schedule.waits = paused, ""
        if not paused:
            try:
                calendar = schedule.calendar(store.calendar_of)
            except ValueError as error:
                raise Refused("bad_value", str(error)) from error
            if schedule.next_unix_ms <= store.unix_ms:
                schedule.next_unix_ms = calendar.after(store.unix_ms) or FUTURE
                schedule.late = 0
        store.schedules.put(store, schedule)
        _note(store, frame, "schedule_paused" if paused else "schedule_resumed", schedule)
        watch(store)
    _reply(store, frame, _shown(schedule))


def schedule_run(store: Store, frame: Frame, part: Any) -> None:
    """Publish a job now, beside the instants of the calendar."""
    schedule = _named(store, frame, part.name)
    result, is_there = publish_job(store, schedule, store.unix_ms)
    store.schedules.counted[BY_HAND] += 1
    queue = store.queues[schedule.definition.queue]
    _note(store, frame, "schedule_run", schedule)
    rests_on = max(store.schedules.last_batch, queue.last_batch, queue.reserve_batch)
    value = {name: result[name] for name in ("origin", "first", "durability")}
    more = {"duplicate": 1} if is_there else {}
    store.reply(frame.connection, frame.request, rests_on, value | more)


def _known(store: Store, frame: Frame, name: str) -> Schedule | None:
    schedule = store.schedules.by_name.get(name)
    scope = store.connections[frame.connection].scope
    if schedule is None or (scope is not None and not scope.covers(schedule.definition.queue)):
        return None
    return schedule


def _named(store: Store, frame: Frame, name: str) -> Schedule:
    schedule = _known(store, frame, name)
    if schedule is None:
        raise Refused(
            "unknown_schedule",
            f"there is no schedule {name!r:.200}; `minibroker schedule list` shows those that there are",
        )
    return schedule


def _info(schedule: Schedule) -> dict[str, Any]:
    """Return what is said of a schedule, but for its content."""
    definition = schedule.definition
    info = {
        "name": schedule.name,
        "queue": definition.queue,
        "cron": definition.cron,
        "zone": definition.zone,
        "misfire": definition.misfire,
        "terms": definition.terms,
        "encoding": definition.encoding,
        "paused": int(schedule.paused),
        "next_unix_ms": schedule.next_unix_ms if schedule.next_unix_ms < FUTURE else 0,
        "last_unix_ms": schedule.last_unix_ms,
    }
    return info | ({"waits": schedule.waits} if schedule.waits else {})


def _shown(schedule: Schedule) -> dict[str, Any]:
    (headers, body), _ = wire.unpack_strings(schedule.content, 2)
    return _info(schedule) | {"headers": headers, "body": body}


def _note(store: Store, frame: Frame, event: str, schedule: Schedule, **more: str) -> None:
    store.effects.note(
        event,
        client=store.connections[frame.connection].session.client,
        connection=frame.connection,
        schedule=schedule.name,
        queue=schedule.definition.queue,
        **more,
    )


def _reply(store: Store, frame: Frame, value: dict[str, Any]) -> None:
    """Answer when what is said of schedules is safe."""
    store.reply(frame.connection, frame.request, store.schedules.last_batch, value)
