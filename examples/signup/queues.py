"""What travels through the queues: a body for each kind of work, the same types in the app and in the workers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NewUser:
    """Somebody has signed up; the rest is in the database, as it is when the work is done."""

    user_id: int


@dataclass(frozen=True, slots=True)
class NewPhoto:
    """A user's photo, uploaded to this path."""

    user_id: int
    photo: str
