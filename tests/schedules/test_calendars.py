"""When an expression is due: beside an oracle that looks at each minute, and where clocks go forward and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibrokerd.schedules.calendars import NICKNAMES, Calendar, NotACalendar, calendar_of

# Nights of zones, and what is due in them, as UTC.
BERLIN, NEW_YORK, HAVANA, LORD_HOWE = (
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "Australia/Lord_Howe",
)
NIGHTS = [
    # 02:00 becomes 03:00 at 01:00 UTC
    (BERLIN, "2026-03-29T00:00", "30 2 * * *", ["03-29 01:00", "03-30 00:30"]),
    (BERLIN, "2026-03-29T00:00", "0 2,3 * * *", ["03-29 01:00", "03-30 00:00"]),
    (BERLIN, "2026-03-29T00:00", "30 * * * *", ["03-29 00:30", "03-29 01:30"]),
    (BERLIN, "2026-03-28T23:50", "*/30 2 * * *", ["03-30 00:00", "03-30 00:30"]),
    # 03:00 becomes 02:00 at 01:00 UTC
    (BERLIN, "2026-10-24T23:00", "30 2 * * *", ["10-25 00:30", "10-26 01:30"]),
    (BERLIN, "2026-10-25T00:00", "0 2 * * *", ["10-26 01:00"]),
    (BERLIN, "2026-10-25T00:10", "30 * * * *", ["10-25 00:30", "10-25 01:30", "10-25 02:30"]),
    (BERLIN, "2026-10-25T01:10", "30 2 * * *", ["10-26 01:30"]),  # asked in the second pass
    (BERLIN, "2026-10-25T01:10", "30 * * * *", ["10-25 01:30", "10-25 02:30"]),
    # 02:00 becomes 03:00 at 07:00 UTC, and back at 06:00 UTC
    (NEW_YORK, "2026-03-08T05:00", "30 2 * * *", ["03-08 07:00", "03-09 06:30"]),
    (NEW_YORK, "2026-11-01T04:00", "30 1 * * *", ["11-01 05:30", "11-02 06:30"]),
    (NEW_YORK, "2026-11-01T05:10", "@hourly", ["11-01 06:00", "11-01 07:00"]),
    # the day begins at 01:00, which is 05:00 UTC; and 01:00 becomes 00:00 at 05:00 UTC
    (HAVANA, "2026-03-08T04:00", "@daily", ["03-08 05:00", "03-09 04:00"]),
    (HAVANA, "2026-11-01T03:00", "@daily", ["11-01 04:00", "11-02 05:00"]),
    (HAVANA, "2026-11-01T04:30", "@daily", ["11-02 05:00"]),
    # half an hour: 02:00 becomes 02:30 at 15:30 UTC, and 02:00 becomes 01:30 at 15:00 UTC
    (LORD_HOWE, "2026-10-03T14:00", "15 2 * * *", ["10-03 15:30", "10-04 15:15"]),
    (LORD_HOWE, "2026-04-04T14:00", "45 1 * * *", ["04-04 14:45", "04-05 15:15"]),
    (LORD_HOWE, "2026-04-04T14:00", "*/15 1 * * *", ["04-04 14:15", "04-04 14:30", "04-04 14:45", "04-04 15:00"]),
    # a fixed time with seconds goes by the rules of one without
    (BERLIN, "2026-03-29T00:00", "15 30 2 * * *", ["03-29 01:00:15", "03-30 00:30:15"]),
    (BERLIN, "2026-10-24T23:00", "0,30 30 2 * * *", ["10-25 00:30", "10-25 00:30:30", "10-26 01:30"]),
]  # fmt: skip


def ms_of(when: datetime) -> int:
    return round(when.timestamp() * 1_000)


def due(calendar: Calendar, start: datetime, count: int) -> list[datetime]:
    """Return the first instants behind `start`."""
    found: list[datetime] = []
    at: int | None = ms_of(start)
    for _ in range(count):
        assert at is not None
        at = calendar.after(at)
        assert at is not None
        found.append(datetime.fromtimestamp(at / 1_000, UTC))
    return found


@pytest.mark.parametrize(("zone", "start", "expression", "expected"), NIGHTS)
def test_the_nights_when_clocks_change(
    zone: str, start: str, expression: str, expected: list[str]
) -> None:
    began = datetime.fromisoformat(start).replace(tzinfo=UTC)
    found = due(calendar_of(expression, zone), began, len(expected))
    told = [f"{when:%m-%d %H:%M:%S}".removesuffix(":00") for when in found]
    assert told == [text if text.count(":") == 2 else f"{text}" for text in expected]


def field(random: Random, low: int, high: int) -> tuple[str, set[int]]:
    """Return a field, and the numbers that it stands for."""
    first, second = sorted((random.randint(low, high), random.randint(low, high)))
    step = random.randint(1, 9)
    every = range(low, high + 1)
    return random.choice(
        [
            ("*", set(every)),
            (f"{first}", {first}),
            (f"{first},{second}", {first, second}),
            (f"{first}-{second}", set(range(first, second + 1))),
            (f"*/{step}", set(every[::step])),
            (f"{first}-{second}/{step}", set(range(first, second + 1)[::step])),
        ]
    )


@pytest.mark.parametrize("seed", range(25))
def test_what_is_due_is_what_an_oracle_finds_minute_by_minute(seed: int) -> None:
    random = Random(seed)
    start = datetime(2024, 2, 27, tzinfo=UTC) + timedelta(minutes=random.randrange(525_600))
    fields = [field(random, *span) for span in ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))]
    (_, minutes), (_, hours), (day_text, days), (_, months), (week_text, weekdays) = fields
    both = day_text.startswith("*") or week_text.startswith("*")

    def fits(when: datetime) -> bool:
        day, weekday = when.day in days, (when.weekday() + 1) % 7 in weekdays
        return (
            when.minute in minutes
            and when.hour in hours
            and when.month in months
            and ((day and weekday) if both else (day or weekday))
        )

    text = " ".join(text for text, _ in fields)
    try:
        calendar = calendar_of(text)
    except NotACalendar:
        assert not months - {2} or not days - {31}, text  # days that do not come
        return
    end = start + timedelta(days=20)
    expected = [
        when
        for at in range(1, 20 * 24 * 60)
        if (when := start + timedelta(minutes=at)).hour in hours and fits(when)
    ]
    found: list[datetime] = []
    at = calendar.after(ms_of(start))
    while at is not None and at < ms_of(end) and len(found) < 100:
        found.append(datetime.fromtimestamp(at / 1_000, UTC))
        at = calendar.after(at)
    assert found == expected[: len(found)], text
    assert len(found) == min(100, len(expected)), text


def test_a_step_over_a_range_of_one_number_ends_with_it() -> None:
    sunday = datetime(2026, 11, 1, tzinfo=UTC)
    days = due(calendar_of("0 0 * * mon-MON/6"), sunday, 2)
    assert [f"{when:%m-%d}" for when in days] == ["11-02", "11-09"]


def test_seconds_stand_first() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    found = due(calendar_of("*/20 5 * * * *"), start, 4)
    assert [f"{when:%H:%M:%S}" for when in found] == [
        "00:05:00",
        "00:05:20",
        "00:05:40",
        "01:05:00",
    ]


def test_the_instant_asked_for_is_not_among_the_answers() -> None:
    calendar = calendar_of("0 12 * * *")
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert due(calendar, noon - timedelta(milliseconds=1), 1) == [noon]
    assert due(calendar, noon, 1) == [noon + timedelta(days=1)]


@pytest.mark.parametrize("nickname", NICKNAMES)
def test_nicknames_are_what_they_stand_for(nickname: str) -> None:
    start = datetime(2026, 1, 1, 5, 7, tzinfo=UTC)
    plain = calendar_of(NICKNAMES[nickname])
    assert due(calendar_of(nickname.upper()), start, 3) == due(plain, start, 3)


@pytest.mark.parametrize(
    ("expression", "zone", "told"),
    [
        ("61 * * * *", "UTC", "its field for the minute is not valid"),
        ("* * *", "UTC", "has 3 fields"),
        ("", "UTC", "has 0 fields"),
        ("0 0 31 2 *", "UTC", "its field for the day-of-month is not valid, or never comes"),
        ("0 0 31 4 1#5,2#5 5", "UTC", "never comes"),
        ("@reboot", "UTC", "'@reboot' is not known"),
        ("1," * 200, "UTC", "at most 256 characters"),
        ("@daily", "Mars/Phobos", "no time zone"),
        ("@daily", "America", "no time zone"),
        ("@daily", "", "no time zone"),
        ("@daily", "../zone", "no time zone"),
    ],
)
def test_what_is_none_is_refused_in_words(expression: str, zone: str, told: str) -> None:
    with pytest.raises(NotACalendar, match=told):
        calendar_of(expression, zone)


@given(st.text("0123456789*/,-#LWSUNMODJAFEB @?", max_size=20))
def test_whatever_is_written_is_a_calendar_or_refused(text: str) -> None:
    try:
        calendar = calendar_of(text)
    except NotACalendar:
        return
    at = calendar.after(0)
    assert at is not None
    assert at > 0


def test_each_answer_in_every_zone_is_behind_the_one_before() -> None:
    for zone in (BERLIN, NEW_YORK, HAVANA, LORD_HOWE, "Africa/Casablanca", "Asia/Tehran", "UTC"):
        for expression in ("*/7 * * * *", "5 1-3 * * *", "15,45 0,1,2,3 * * *", "30 1 */3 * *"):
            calendar = calendar_of(expression, zone)
            for start in (
                "2026-03-07",
                "2026-03-28",
                "2026-04-04",
                "2026-10-03",
                "2026-10-24",
                "2026-10-31",
            ):
                at = ms_of(datetime.fromisoformat(start).replace(tzinfo=UTC))
                for _ in range(40):
                    after = calendar.after(at)
                    assert after is not None
                    assert after > at
                    local = datetime.fromtimestamp(after / 1_000, ZoneInfo(zone))
                    assert local.second == 0
                    at = after
