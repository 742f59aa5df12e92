"""What a retained log of a world may let go of, or must have: retention, compaction, purges, its end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from checker import OK, REFUSED, UNKNOWN, Id


@dataclass(slots=True, eq=False)
class Sent:
    """One message that a client wants in a log; `name` is what it is known by, wherever it comes."""

    name: bytes
    log: str
    client: str
    key: str
    sent_us: int
    sent_unix_ms: int
    is_tombstone: bool = False  # an empty body, and a name in its headers
    outcome: str = UNKNOWN
    confirmed_us: int = 0
    id: Id | None = None  # known from its confirm
    offset: int = -1  # known from that, or from whoever got it


@dataclass(slots=True)
class Removal:
    """A purge of a log, or its end, that somebody asked for."""

    sent_us: int
    done_us: int | None = None
    failed: bool = False

    def may_have(self, sent: Sent) -> bool:
        """Whether a message may have ended by it."""
        return not self.failed and (self.done_us is None or sent.sent_us <= self.done_us)

    def has(self, sent: Sent) -> bool:
        """Whether it certainly did."""
        return self.done_us is not None and sent.outcome == OK and sent.confirmed_us < self.sent_us


@dataclass(slots=True)
class Bounds:
    """Those of one log: its settings, and what was asked of it."""

    settings: dict[str, Any]
    removals: list[Removal] = field(default_factory=list)
    begins_anew: bool = False  # it is ended and made again, all the time

    def may_be_gone(self, sent: Sent, others: Sequence[Sent], now_us: int, *, jumped: bool) -> bool:
        """Whether a message that was confirmed may be missing; `others` are all of its log."""
        if any(removal.may_have(sent) for removal in self.removals):
            return True
        kept_ms = self.settings.get("retention_ms", 0)
        if kept_ms and (jumped or sent.sent_us + 1_000 * kept_ms <= now_us):
            return True
        if self.settings.get("retention_messages") or self.settings.get("retention_bytes"):
            return True  # from the front: see `judge`
        if not (self.settings.get("compaction_ms") and sent.key):
            return False
        dies_us = sent.sent_us + 1_000 * self.settings["tombstone_ms"]
        if sent.is_tombstone and (jumped or dies_us <= now_us):
            return True
        return any(
            other.key == sent.key
            and other.outcome != REFUSED
            and not 0 <= other.offset < sent.offset
            for other in others
            if other is not sent
        )

    def judge(
        self, found: Collection[int], all_sent: Sequence[Sent], tell: Callable[[str], None]
    ) -> None:
        """What goes by retention goes from the front, and never more than that lets go: `found` is there."""
        is_bounded = any(name.startswith("retention_") for name in self.settings)
        stored = [sent for sent in all_sent if sent.outcome == OK]
        if not is_bounded or self.removals or not stored:
            return
        gone = [sent.offset for sent in stored if sent.offset not in found]
        if gone and found and max(gone) > min(found):
            tell(f"{max(gone)} is gone, and {min(found)} is there")
        least = min(self.settings.get("retention_messages", 0), len(stored))
        if len(found) < least:
            tell(f"{len(found)} messages are there, and {least} should be kept")
        if gone and not found and not self.settings.get("retention_ms"):
            tell("nothing is there: what was written last stays")
