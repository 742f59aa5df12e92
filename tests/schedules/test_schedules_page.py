"""docs/guide/schedules.md: its table of nights in which clocks change is what the calendar says."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from minibrokerd.schedules.calendars import calendar_of
from support.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "schedules.md").read_text("utf-8")
ROWS = re.findall(r"^\| (\w+/\w+) \| (\d{4}-\d\d-\d\d), .*? \| `(.+?)` \| (.+?) \|$", PAGE, re.M)
FORMAT = "%m-%d %H:%M%z"


@pytest.mark.parametrize(("zone", "night", "cron", "due"), ROWS)
def test_the_table_of_nights(zone: str, night: str, cron: str, due: str) -> None:
    """What a row names follows without a gap, from its first instant on; and a calendar is asked from anywhere."""
    named = [datetime.strptime(f"{night[:4]}-{each}", f"%Y-{FORMAT}") for each in due.split(", ")]
    calendar, at_ms = calendar_of(cron, zone), round(named[0].timestamp() * 1_000) - 1
    found = []
    for _ in named:
        behind = calendar.after(at_ms)
        assert behind is not None
        at_ms = behind
        found.append(datetime.fromtimestamp(at_ms / 1_000, ZoneInfo(zone)).strftime(FORMAT))
    assert found == due.split(", ")
    midnight = datetime.fromisoformat(night).replace(tzinfo=ZoneInfo(zone))
    first = calendar.after(round((midnight - timedelta(milliseconds=1)).timestamp() * 1_000))
    assert first is not None
    assert first <= named[0].timestamp() * 1_000


def test_the_table_has_four_zones_both_ways() -> None:
    """A gap and an overlap each."""
    assert len(ROWS) == 17
    assert len({(zone, night) for zone, night, _, _ in ROWS}) == 8
