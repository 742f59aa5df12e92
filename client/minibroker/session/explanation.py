"""What `explain` says: why a message is not running, since when, and what would let it go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from minibroker.contract.confirms import MessageId
from minibroker.contract.reasons import REASONS
from minibroker.contract.wire import pack_runs
from minibroker.session.wishes import Wish, runs_of


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a message is not running. `str()` is the whole answer as a sentence.

    `reason` is the code of a row of `minibroker.contract.reasons` (protocol.md has the table); one of a newer
    server that this library does not know stays readable.
    """

    id: MessageId
    queue: str  # where it is, or was: that of the call, its dead-letter queue, or another one that it was moved to
    state: str  # ENTERING, READY, DELAYED, HELD, BEGUN or ENDED
    reason: str
    since: (
        datetime | None
    )  # by the server's clock (UTC); None: it is not known, or means nothing here
    until: datetime | None  # when it goes on by itself
    by: str  # who or what keeps it: a client, an error, a queue

    @property
    def says(self) -> str:
        """The reason in words."""
        row = REASONS.get(self.reason)
        return self._filled(row.says) if row is not None else f"{self.reason} {self.by}".strip()

    @property
    def release(self) -> str:
        """What would let it go on; empty: nothing, it has ended."""
        row = REASONS.get(self.reason)
        return self._filled(row.release) if row is not None else ""

    def __str__(self) -> str:
        where = f" of {self.queue}" if self.queue else ""
        release = f"; what lets it go on: {self.release}" if self.release else ""
        return f"message {self.id}{where} is {self.state}: {self.says}{release}"

    def _filled(self, text: str) -> str:
        by = self.by or "a client without a name"
        since, until = (_clock(each) for each in (self.since, self.until))
        return text.format(queue=self.queue, by=by, since=since, until=until)


def explain(queue: str, id: MessageId) -> Wish:
    """Return the wish to have a message explained; TypeError, BadValue if it has no such id."""
    return "explain", {"queue": queue, "runs": 1}, pack_runs(runs_of([id]))


def read(id: MessageId, value: Mapping[str, Any]) -> Explanation:
    """Return the answer of the server as an explanation."""
    return Explanation(
        MessageId(*id),
        str(value["queue"]),
        str(value["state"]),
        str(value["reason"]),
        _time(value.get("since_unix_ms", 0)),
        _time(value.get("until_unix_ms", 0)),
        str(value.get("by", "")),
    )


def _time(unix_ms: int) -> datetime | None:
    return datetime.fromtimestamp(unix_ms / 1_000, UTC) if unix_ms else None


def _clock(time: datetime | None) -> str:
    return (
        "a time that is not known" if time is None else time.isoformat(" ", "seconds")[:-6] + " UTC"
    )
