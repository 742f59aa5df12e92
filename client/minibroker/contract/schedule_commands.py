"""Rows of the command table: schedules, by which the server publishes jobs at the times of a calendar."""

from __future__ import annotations

from typing import Final

from minibroker.contract import limits
from minibroker.contract.fields import QUEUE, text, whole
from minibroker.contract.rows import REQUIRED, Answer, Command, Field, Kind, Phase

# What becomes of times that passed while nothing could be published, as while the server was down.
MISFIRES: Final = ("skip", "once", "all")

_MAIN = (Phase.OPEN,)
_NAME = text("name", limits.MAX_QUEUE_NAME_CHARS, "Name of the schedule.", REQUIRED)

SCHEDULE_COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "schedule_set",
        _MAIN,
        Answer.REPLY,
        (
            _NAME,
            QUEUE,
            text("cron", limits.MAX_CRON_CHARS, "When it is due.", REQUIRED),
            text("zone", limits.MAX_ZONE_BYTES, "Time zone of that (IANA).", "UTC"),
            text("misfire", limits.MAX_STATE_CHARS, "`skip`, `once` or `all`.", "once"),
            whole("encoding", 1, "Encoding of the body.", default=0),
            Field(
                "terms",
                Kind.MAP,
                REQUIRED,
                32,
                "entries",
                "Other fields of its publish; may be {}.",
            ),
        ),
        ("content",),
        "Have a job published whenever a calendar is due; or change the schedule of that name.",
        repeatable=True,
    ),
    Command(
        "schedules",
        _MAIN,
        Answer.REPLY,
        (
            text("name", limits.MAX_QUEUE_NAME_CHARS, "One schedule; empty: all."),
            text("after", limits.MAX_QUEUE_NAME_CHARS, "`next` of the page before."),
            whole(
                "count",
                limits.MAX_SCHEDULES_SHOWN,
                "Most schedules to show; 0: as many as one answer may have.",
                "schedules",
                default=0,
            ),
        ),
        (),
        "Show schedules, by their names.",
        repeatable=True,
    ),
    Command(
        "schedule_delete",
        _MAIN,
        Answer.REPLY,
        (_NAME,),
        (),
        "End a schedule; what it published stays.",
        repeatable=True,
    ),
    Command(
        "schedule_pause",
        _MAIN,
        Answer.REPLY,
        (_NAME, whole("paused", 1, "1: publish nothing; 0: go on with what is due next.")),
        (),
        "Let a schedule rest, or go on.",
        repeatable=True,
    ),
    Command(
        "schedule_run",
        _MAIN,
        Answer.REPLY,
        (_NAME,),
        (),
        "Publish the job of a schedule now, beside its times.",
    ),
)
