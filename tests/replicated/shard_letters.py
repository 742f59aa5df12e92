"""What brokers of two shards say to each other about a move: letters get lost, late, doubled. Decision 83."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Letter:
    """About a group, from one shard to another."""

    group: str
    sender: int


@dataclass(frozen=True, slots=True)
class Freeze(Letter):
    """Freeze it, for me."""


@dataclass(frozen=True, slots=True)
class GiveUp(Letter):
    """I have all copies of an attempt."""

    attempt: int


@dataclass(frozen=True, slots=True)
class IsFrozen(Letter):
    """It is; the record stands at or before `upto`."""

    version: int
    attempt: int
    upto: int


@dataclass(frozen=True, slots=True)
class IsMoved(Letter):
    """An attempt came to MOVED."""

    attempt: int


@dataclass(frozen=True, slots=True)
class IsOver(Letter):
    """An attempt came to THAWED."""

    attempt: int


@dataclass(frozen=True, slots=True)
class NotMine(Letter):
    """It is elsewhere."""

    shard: int
