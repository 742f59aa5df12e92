"""The API of schedules: jobs that the broker publishes by a calendar."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from minibroker.contract.bodies import Encoded
from minibroker.session.schedule_wishes import Schedule
from minibrokerd.http.messages import body_of, terms_of
from minibrokerd.http.requests import Ask, Failure, fitting
from minibrokerd.http.shapes import NewJob, Stored
from minibrokerd.text.values import text_of

PREVIEW_CHARS = 2_000


class ScheduleView(msgspec.Struct):
    """A schedule. `body_text` is a preview for people; `waits` why a job that is due is not published."""

    name: str
    queue: str
    cron: str
    zone: str
    misfire: str
    paused: bool
    next_unix_ms: int  # 0: it is never due
    last_unix_ms: int  # 0: there was none yet
    waits: str
    terms: dict[str, int | str]
    headers: dict[str, Any]
    body_text: str


class ScheduleList(msgspec.Struct):
    """All schedules, by their names."""

    schedules: list[ScheduleView]


class NewSchedule(NewJob, kw_only=True, forbid_unknown_fields=True):
    """What a schedule is to be: the message that it publishes, where, and when."""

    queue: str
    cron: str
    zone: str = "UTC"
    misfire: str = "once"
    unique_key: str = ""  # while a job of it has not ended, there is no other
    unique: str = "drop"


class Deleted(msgspec.Struct):
    """Whether there was one."""

    deleted: bool


async def list_schedules(ask: Ask) -> ScheduleList:
    """Return all schedules."""
    return ScheduleList([view_of(each) for each in await ask.client.schedules.list()])


async def show_schedule(ask: Ask) -> ScheduleView:
    """Return one schedule."""
    return view_of(await ask.client.schedules.show(_name(ask)))


async def set_schedule(ask: Ask) -> ScheduleView:
    """Make a schedule, or change the one of that name."""
    wish = await ask.body(NewSchedule)
    body = body_of(wish)
    ask.make(wish.queue)
    with fitting():
        found = await ask.client.schedules.set(
            _name(ask),
            wish.cron,
            wish.queue,
            Encoded(b"", 0) if body is msgspec.UNSET else body,
            zone=wish.zone,
            misfire=wish.misfire,
            headers=wish.headers or None,
            key=wish.key or None,
            delay=wish.delay_ms / 1_000,
            unique_key=wish.unique_key or None,
            unique=wish.unique,
            **terms_of(wish),
        )
    ask.changed("set_schedule", schedule=found.name, queue=found.queue, cron=found.cron)
    return view_of(found)


async def delete_schedule(ask: Ask) -> Deleted:
    """End a schedule."""
    deleted = await ask.client.schedules.delete(_name(ask))
    if not deleted:
        raise Failure(404, "unknown_schedule", f"there is no schedule {_name(ask)!r:.200}")
    ask.changed("delete_schedule", schedule=_name(ask))
    return Deleted(deleted)


async def pause_schedule(ask: Ask) -> ScheduleView:
    """Let a schedule rest."""
    found = await ask.client.schedules.pause(_name(ask))
    ask.changed("pause_schedule", schedule=found.name)
    return view_of(found)


async def resume_schedule(ask: Ask) -> ScheduleView:
    """Let a schedule go on with its next time."""
    found = await ask.client.schedules.resume(_name(ask))
    ask.changed("resume_schedule", schedule=found.name)
    return view_of(found)


async def run_schedule(ask: Ask) -> Stored:
    """Publish the job of a schedule now."""
    confirm = await ask.client.schedules.run(_name(ask))
    ask.changed("run_schedule", schedule=_name(ask), id=str(confirm.id))
    return Stored(str(confirm.id), confirm.durability, confirm.duplicate)


def view_of(schedule: Schedule) -> ScheduleView:
    """Return a schedule as the API shows it."""
    return ScheduleView(
        schedule.name,
        schedule.queue,
        schedule.cron,
        schedule.zone,
        schedule.misfire,
        schedule.paused,
        _unix_ms(schedule.next),
        _unix_ms(schedule.last),
        schedule.waits,
        dict(schedule.terms),
        schedule.headers,
        text_of(schedule.body)[:PREVIEW_CHARS],
    )


def _name(ask: Ask) -> str:
    return str(ask.request.path_params["schedule"])


def _unix_ms(time: datetime | None) -> int:
    return 0 if time is None else round(time.timestamp() * 1_000)
