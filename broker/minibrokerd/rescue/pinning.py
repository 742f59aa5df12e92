"""What lives in each segment of a log, and so what keeps the segment from being freed.

Pure: batches in, rows out. Only the oldest segment is ever freed, so what pins that one pins the disk space of all
that is behind it. Liveness is known by batch, as the copying forward knows it (core/durable/forwarding.py): a
message that of its publish or newest copy, a queue those of its settings and its reservation, a session those of
its outcomes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.messages import Item
from minibrokerd.log.format import Kind
from minibrokerd.log.seam import Batch
from minibrokerd.rescue.pieces import Piece

# Of pins of one segment, by their first word: what is told first. "a": something that is kept beside messages.
ORDER: Final = ("message", "settings", "a", "outcome")


@dataclass(slots=True)
class Pin:
    """Something that lives: what it is, whose it is (a queue, a session), and its wall time (0: not known)."""

    what: str
    of: str
    unix_ms: int
    batch: int


@dataclass(slots=True)
class SegmentUse:
    """One segment: what stands in it, what of that lives, and the oldest of what does."""

    number: int
    generation: int
    upto: int = 0
    written_bytes: int = 0
    batches: int = 0
    records: int = 0
    live_messages: int = 0
    live_bytes: int = 0
    pins: int = 0
    pin: Pin | None = None


class Usage:
    """Takes the pieces of a whole log in their order; `segments` ends the replay and returns the rows."""

    def __init__(self) -> None:
        self._core = Core(BodyStore())
        self._rows: list[SegmentUse] = []
        self._now_ms = self._unix_ms = 0

    def take(self, piece: Piece) -> None:
        """Replay one piece; a torn one at the end is no part of the log."""
        header = piece.header
        if header is None or not piece.whole:
            return
        origin = header.origin
        if not self._rows or self._rows[-1].number != origin.segment:
            self._rows.append(SegmentUse(origin.segment, origin.generation))
        row = self._rows[-1]
        row.upto, row.written_bytes = header.number, piece.end
        self._now_ms = max(self._now_ms, header.now_ms)
        self._unix_ms = max(self._unix_ms, header.unix_ms)
        if header.kind is Kind.DATA:
            row.batches += 1
            row.records += len(piece.records)
            self._core.replay(Batch(header.number, piece.records, header.now_ms, header.unix_ms))

    def segments(self) -> list[SegmentUse]:
        """Return the rows, oldest segment first."""
        upto = self._rows[-1].upto if self._rows else 0
        self._core.opened(1, self._now_ms, self._unix_ms, clean=True, next_batch=upto + 1)
        for queue in self._core.store.queues.values():
            for _, item in queue.group.items():
                self._count(queue.name, item)
        for pin in self._settings():
            self._pin(pin)
        return self._rows

    def live_bytes(self) -> int:
        """Return about how many bytes of the log are still needed, as the server counts them."""
        return self._core.live_bytes()

    def _count(self, queue: str, item: Item) -> None:
        block = item.block
        row = self._row(block.batch)
        if row is not None:
            row.live_messages += item.stop - item.first
            row.live_bytes += block.cost(item.first, item.stop)
            what = f"message {block.origin}-{item.first}"
            self._pin(Pin(what, queue, block.unix_ms, block.batch))

    def _settings(self) -> Iterator[Pin]:
        store = self._core.store
        for queue in store.queues.values():
            yield Pin("settings", queue.name, 0, queue.record_batch)
            yield Pin("settings: reserved ids", queue.name, 0, queue.reserve_batch)
        yield Pin("settings: queue numbers", "-", 0, store.dropped_batch)
        for session in store.sessions.values():
            for outcome in session.window.values():
                name = f"session {session.id}"
                yield Pin("outcome of a frame", name, session.seen_unix_ms, outcome.recorded)

        for entry in store.kept:
            if entry.kind.copied:
                yield Pin(f"a kept {entry.kind.name}", "-", 0, entry.batch)

    def _row(self, batch: int) -> SegmentUse | None:
        """Return the segment that holds a batch; None: no record of it is in the log."""
        at = bisect_left(self._rows, batch, key=lambda row: row.upto)
        return self._rows[at] if batch and at < len(self._rows) else None

    def _pin(self, pin: Pin) -> None:
        row = self._row(pin.batch)
        if row is not None:
            row.pins += 1
            if row.pin is None or _rank(pin) < _rank(row.pin):
                row.pin = pin


def _rank(pin: Pin) -> tuple[int, int]:
    return ORDER.index(pin.what.split()[0].rstrip(":")), pin.batch
