"""The numbers that checks judge, as the API gives them."""

from __future__ import annotations

import msgspec


class Reading(msgspec.Struct):
    """One number, by the name of its check; without it, the check says nothing of this broker.

    `queues` are those that it is worst in. `since_unix_ms`: since when it is so, where that is known, else 0.
    `trouble`: why it is critical, whatever the number.
    """

    check: str
    value: float
    queues: dict[str, float] = {}
    since_unix_ms: int = 0
    trouble: str = ""


class Readings(msgspec.Struct):
    """All numbers of one look. `window_s`: how much of the window that was asked for the broker has run."""

    version: str
    phase: str
    recovered_percent: int
    now_unix_ms: int
    queues: int  # that were looked at
    window_s: float
    readings: list[Reading]
