"""Calendars for a server that may have no schedule at all: what makes them is imported for the first one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minibrokerd.schedules.calendars import Calendar


def calendar_of(expression: str, zone: str) -> Calendar:
    """Return the calendar of a cron expression in a zone; ValueError says why there is none."""
    from minibrokerd.schedules import calendars

    return calendars.calendar_of(expression, zone)
