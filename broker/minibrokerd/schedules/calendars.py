"""A calendar: a cron expression in a time zone, and the instants that it names.

`cronsim` finds the minutes by rules of Debian's cron. A fixed time that a gap of the zone leaves out is due at
once behind the gap; one that an overlap has twice is due in the first pass alone; what is due by the hour or the
minute is due in both passes. Three things are ours, all seen with cronsim 2.8:

- An answer that is not behind the instant asked for is passed over, compared in UTC. Asked in the second pass of
  an overlap, cronsim names a time of the first.
- Seconds are laid upon minutes here: cronsim follows the rules of gap and overlap for five fields only.
- A step over a range of one number ends with that number. cronsim takes `1-1/6` for `1/6`, thus for 1 and 7.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from minibroker.contract import limits

NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FORM: Final = (
    "five fields (minute, hour, day of month, month, weekday), six with seconds first, or one of "
    + ", ".join(NICKNAMES)
)
_RANGE_OF_ONE: Final = re.compile(r"\b([0-9A-Z]+)-\1/[0-9]+", re.IGNORECASE)
_MINUTE: Final = timedelta(minutes=1)
_FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)


class NotACalendar(ValueError):
    """An expression or a zone that is none; the text says which, and what is taken."""


class Calendar(NamedTuple):
    """A cron expression, as it was given, and the name of its time zone (IANA)."""

    expression: str
    zone: str
    minutes: str  # the five fields
    seconds: tuple[int, ...]  # of each of those minutes, ascending

    def after(self, unix_ms: int) -> int | None:
        """Return the first instant behind `unix_ms`, in ms; None: there is none within 50 years."""
        asked = datetime.fromtimestamp(unix_ms / 1_000, UTC)
        for minute in self._minutes_from(asked - _MINUTE):
            start_ms = round(minute.timestamp()) * 1_000
            for second in self.seconds:
                if start_ms + second * 1_000 > unix_ms:
                    return start_ms + second * 1_000
        return None

    def _minutes_from(self, start: datetime) -> Iterator[datetime]:
        try:
            yield from CronSim(self.minutes, start.astimezone(ZoneInfo(self.zone)))
        except OverflowError:  # behind the year 9999
            return


def calendar_of(expression: str, zone: str = "UTC") -> Calendar:
    """Return the calendar of a cron expression; NotACalendar."""
    if len(expression) > limits.MAX_CRON_CHARS:
        raise NotACalendar(
            f"a cron expression has at most {limits.MAX_CRON_CHARS} characters, not {len(expression)}"
        )
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in NICKNAMES:
            raise NotACalendar(f"{expression!r} is not known; a cron expression has {FORM}")
        text = NICKNAMES[text.lower()]
    fields = _RANGE_OF_ONE.sub(r"\1", text).split()
    if len(fields) not in (5, 6):
        raise NotACalendar(f"{expression!r} has {len(fields)} fields; a cron expression has {FORM}")
    seconds, minutes = fields[0] if len(fields) == 6 else "0", " ".join(fields[-5:])
    try:
        CronSim(minutes, _FIRST)
        of_a_minute = CronSim(f"{seconds} * * * * *", _FIRST).seconds
    except CronSimError as error:
        raise NotACalendar(
            f"{expression!r}: {_told(error)}; a cron expression has {FORM}"
        ) from error
    calendar = Calendar(expression, _known(zone), minutes, tuple(sorted(of_a_minute)))
    if calendar.after(round(_FIRST.timestamp()) * 1_000) is None:
        raise NotACalendar(f"{expression!r} is never due: no day within 50 years fits it")
    return calendar


def _told(error: CronSimError) -> str:
    """Return what cronsim says, which is like "Bad minute", as a part of a sentence."""
    return f"its field for the {str(error).removeprefix('Bad ')} is not valid, or never comes"


def _known(zone: str) -> str:
    try:
        ZoneInfo(zone)
    except (LookupError, ValueError, OSError) as error:  # the last: "America" is a directory
        raise NotACalendar(
            f"{zone!r} is no time zone; the IANA database has their names: Europe/Berlin, America/New_York, UTC"
        ) from error
    return zone
