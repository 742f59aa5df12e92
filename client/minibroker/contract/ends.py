"""The table of ends: how a message can leave its queues for good, and what those who wait for it are told.

The server tells the state of a row; the sentence is made of the row by whoever shows it. The numbers stand in the
log.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple


class Outcome(IntEnum):
    """What became of a message; the number stands in the log."""

    DONE = 0
    DEAD = 1
    CANCELLED = 2
    PURGED = 3
    ACKED = 4
    EXPIRED = 5
    DROPPED = 6
    REPLACED = 7
    DUPLICATE = 8
    DELETED = 9
    DAMAGED = 10


class End(NamedTuple):
    """One row; printed as one row of protocol.md, `result`.

    `reason` is the code of a row of `minibroker.contract.reasons`. `says` is about the message: `{by}` stands for
    what the answer has under that name, `{error}` for the error of a dead one.
    """

    outcome: Outcome
    reason: str
    says: str  # empty: it has a result


_ROWS: Final = (
    End(Outcome.DONE, "acked", ""),
    End(
        Outcome.ACKED,
        "acked",
        "was acked, and its queue keeps no results; its setting result_ms, or the worker, lets it",
    ),
    End(Outcome.DEAD, "dead", "is dead: {error}"),
    End(Outcome.CANCELLED, "cancelled", "was cancelled by {by}"),
    End(Outcome.PURGED, "purged", "was purged by {by}"),
    End(
        Outcome.DELETED,
        "deleted",
        "ended with its queue {by}, which was deleted, or ended by itself: unused, or with its session",
    ),
    End(Outcome.EXPIRED, "ttl_expired", "expired: its time to live was over before it had begun"),
    End(Outcome.DROPPED, "dropped", "was dropped: {by} was full, and it was the oldest"),
    End(Outcome.REPLACED, "replaced", "was replaced by {by}, which has its unique key"),
    End(Outcome.DUPLICATE, "duplicate", "is a duplicate of {by}, and was not stored"),
    End(Outcome.DAMAGED, "damaged", "was set aside: what the log has of it is damaged"),
)
ENDS: Final[Mapping[str, End]] = {row.outcome.name: row for row in _ROWS}
assert len(ENDS) == len(_ROWS) == len(Outcome), "every outcome needs exactly one row"


# What becomes of a message that came after others of which some are dead; the first one if nothing is said.
IF_DEAD: Final = ("dead-letter", "run")


class After(NamedTuple):
    """How the messages ended that a message waited for: done, or not (dead, cancelled, dropped, ...)."""

    done: int
    dead: int
