"""The counting: what the world holds, against what the users were told.

Nothing here asks the broker. Mails are counted in the mail server's record, avatars as files,
analytics as rows of SQLite; each must be there for every signup that was answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from database import Analytics
from journal import Journal
from photo import avatar_owners


class Job(NamedTuple):
    """A message in the hands of a worker process."""

    pid: int
    queue: str
    user_id: int


@dataclass(frozen=True, slots=True)
class World:
    """How often each user got each thing."""

    mails: Counter[int]
    avatars: Counter[int]
    analytics: Counter[int]

    @classmethod
    def read(cls, folder: Path) -> World:
        """Look at the mail server's record, the avatar files and the analytics rows of a run."""
        return cls(
            mails=mails_delivered(Journal(folder / "mail.jsonl").read()),
            avatars=Counter(avatar_owners(folder / "avatars")),
            analytics=Counter(Analytics(folder).counted()),
        )

    def lost(self, answered: Collection[int]) -> list[str]:
        """Return what is missing, as text; empty if every answered signup has everything."""
        return [
            f"{thing} of user {user_id}"
            for thing, counts in self._things()
            for user_id in sorted(answered)
            if not counts[user_id]
        ]

    def duplicates(self) -> int:
        """Return how many things somebody got beyond the first."""
        return sum(count - 1 for _, counts in self._things() for count in counts.values())

    def _things(self) -> Iterable[tuple[str, Counter[int]]]:
        return (("mail", self.mails), ("avatar", self.avatars), ("analytics", self.analytics))


def mails_delivered(record: Iterable[Mapping[str, Any]]) -> Counter[int]:
    """Count the mails that the mail server delivered, for each user."""
    return Counter(entry["user_id"] for entry in record if entry["event"] == "delivered")


def served(counts: Counter[int], answered: Collection[int]) -> int:
    """Return how many of the answered users got it at least once."""
    return sum(1 for user_id in answered if counts[user_id])


def running(journal: Iterable[Mapping[str, Any]]) -> dict[Job, float]:
    """Return the jobs that started and did not end, with the time of their start (unix seconds).

    A worker that was killed leaves its jobs here for ever: they are what it had in hand.
    """
    jobs: dict[Job, float] = {}
    for entry in journal:
        if entry["event"] == "ready":
            continue
        job = Job(entry["pid"], entry["queue"], entry["user_id"])
        if entry["event"] == "started":
            jobs[job] = entry["at"]
        else:
            jobs.pop(job, None)
    return jobs


def median(values: Collection[float]) -> float:
    """Return the p50, the upper one: of 20 values the 11th, so at least half are no larger."""
    return sorted(values)[len(values) // 2]


@dataclass(frozen=True, slots=True)
class Summary:
    """The last line of the demo; its fields, in order."""

    signups: int
    request_ms: int
    queued_ms: int
    mails: int
    avatars: int
    dead_letters: int
    redriven: int
    worker_kills: int
    broker_kills: int
    lost: int
    duplicates: int

    def __str__(self) -> str:
        return "demo: " + " ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)
