"""One email in four kinds of types, with everything in it that people put into bodies."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pydantic


class Mood(enum.Enum):
    """Why it is written."""

    GLAD = "glad"
    SAD = "sad"


class Rank(enum.IntEnum):
    """How soon it is read."""

    FIRST = 1


@dataclasses.dataclass
class DataLine:
    """A line of a bill."""

    what: str
    price: Decimal


@dataclasses.dataclass(slots=True)
class DataEmail:
    """As a dataclass."""

    to: str
    at: datetime
    local: datetime
    id: UUID
    mood: Mood
    rank: Rank
    day: date
    hour: time
    wait: timedelta
    picture: bytes
    tags: set[str]
    pair: tuple[int, str]
    lines: list[DataLine]
    by_number: dict[int, date]
    reply: UUID | None = None


class StructLine(msgspec.Struct):
    """A line of a bill."""

    what: str
    price: Decimal


class StructEmail(msgspec.Struct):
    """As a msgspec.Struct."""

    to: str
    at: datetime
    local: datetime
    id: UUID
    mood: Mood
    rank: Rank
    day: date
    hour: time
    wait: timedelta
    picture: bytes
    tags: set[str]
    pair: tuple[int, str]
    lines: list[StructLine]
    by_number: dict[int, date]
    reply: UUID | None = None


class ModelLine(pydantic.BaseModel):
    """A line of a bill."""

    what: str
    price: Decimal


class ModelEmail(pydantic.BaseModel):
    """As a pydantic model."""

    to: str
    at: datetime
    local: datetime
    id: UUID
    mood: Mood
    rank: Rank
    day: date
    hour: time
    wait: timedelta
    picture: bytes
    tags: set[str]
    pair: tuple[int, str]
    lines: list[ModelLine]
    by_number: dict[int, date]
    reply: UUID | None = None


class DictLine(TypedDict):
    """A line of a bill."""

    what: str
    price: Decimal


class DictEmail(TypedDict):
    """As a TypedDict."""

    to: str
    at: datetime
    local: datetime
    id: UUID
    mood: Mood
    rank: Rank
    day: date
    hour: time
    wait: timedelta
    picture: bytes
    tags: set[str]
    pair: tuple[int, str]
    lines: list[DictLine]
    by_number: dict[int, date]
    reply: UUID | None


class Point(NamedTuple):
    """A small type of the standard library."""

    x: int
    at: datetime


class Kind(NamedTuple):
    """A type of the four, and that of its lines."""

    email: Callable[..., Any]
    line: Callable[..., Any]

    def made(self) -> Any:
        """Return the email."""
        return self.email(
            to="bob",
            at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
            local=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            id=UUID(int=7),
            mood=Mood.SAD,
            rank=Rank.FIRST,
            day=date(2026, 1, 2),
            hour=time(3, 4, 5, 6),
            wait=timedelta(days=-1, microseconds=3),
            picture=b"\xff\x00",
            tags={"a", "b"},
            pair=(1, "x"),
            lines=[self.line(what="tea", price=Decimal("1.50"))],
            by_number={3: date(2026, 1, 3)},
            reply=None,
        )


KINDS = {
    "dataclass": Kind(DataEmail, DataLine),
    "struct": Kind(StructEmail, StructLine),
    "pydantic": Kind(ModelEmail, ModelLine),
    "typeddict": Kind(DictEmail, DictLine),
}
