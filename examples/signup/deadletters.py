"""What a dead-letter queue holds, as a person reads it: each attempt of a message in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import minibroker

COLUMNS = ("attempt", "started (UTC)", "took", "cause", "worker", "error")
LONGEST_ERROR = 60  # characters; the whole text is in the message


async def peek(dlq: minibroker.Queue[Any]) -> Sequence[minibroker.Peeked]:
    """Return the dead messages of a dead-letter queue, which need not exist yet."""
    try:
        return await dlq.peek()
    except minibroker.UnknownQueue:
        return []


def history_table(history: Sequence[Mapping[str, Any]], indent: str = "") -> str:
    """Return the attempts of a message as a table.

    Each entry has `started_unix_ms`, `ended_unix_ms`, `cause`, `client`, `error_class`, `error_text`.
    """
    rows = [COLUMNS, *(_row(number, entry) for number, entry in enumerate(history, start=1))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(indent + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(number: int, entry: Mapping[str, Any]) -> tuple[str, ...]:
    started = datetime.fromtimestamp(entry["started_unix_ms"] / 1_000, UTC)
    error = f"{entry['error_class']}: {entry['error_text']}" if entry["error_class"] else ""
    return (
        str(number),
        f"{started:%H:%M:%S}.{started.microsecond // 1_000:03d}",
        f"{entry['ended_unix_ms'] - entry['started_unix_ms']} ms",
        entry["cause"],
        entry["client"],
        error if len(error) <= LONGEST_ERROR else error[: LONGEST_ERROR - 3] + "...",
    )
