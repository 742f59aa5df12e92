"""Which records of a damaged log are kept, what must be added to them, and which messages are at risk.

Pure: pieces in, records out. What is kept is true, as it was synced; what is lost may be anything: the name of a
queue, a reservation, an ack. So the rest is made to stand without it: a queue that nothing names gets a name, a
queue whose end is lost ends when another one takes its name, and numbers and ids go on above all that can have
been in use.

In a batch whose record heads do not verify as a whole, a record's own checksum says nothing of its type. Such a
record is kept if it has exactly the fields of its type; PURGE and DROP, which look alike and end everything, are
not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgpack

from minibroker.contract.limits import DLQ_SUFFIX
from minibroker.contract.settings import LOG, default_settings
from minibroker.contract.wire import RUN
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.queues import RESERVE_STEP
from minibrokerd.core.model.records import (
    AckMeta,
    BeginMeta,
    CopyMeta,
    DropMeta,
    Meta,
    MoveMeta,
    PublishMeta,
    PurgeMeta,
    QueueMeta,
    ReserveMeta,
    ReturnMeta,
    RunMeta,
    UnknownRecord,
    decode,
    record,
)
from minibrokerd.log.format import Kind
from minibrokerd.log.seam import Batch, Record
from minibrokerd.rescue.pieces import Piece

Ids = tuple[int, int, int]  # origin, first sequence, count
SHOWN: Final = 5  # ids that are named of each queue
LEAST_QUEUE_BYTES: Final = 24  # of a QUEUE record
LEAST_MESSAGE_BYTES: Final = 8  # of a message in a record: its lengths


@dataclass(slots=True)
class QueueRisk:
    """What the damage means for the messages of one queue.

    `live` have not ended. `lost` are ids whose record is broken, `unknown` those that no record is left of (lost,
    or never written: messages of durability `memory` have none). `again` of the live ones are older than the last
    damage: an ack that stood there is lost, so they may be delivered again; `again_ids` are the first of them.
    """

    name: str
    live: int = 0
    lost: list[Ids] = field(default_factory=list)
    unknown: list[Ids] = field(default_factory=list)
    again: int = 0
    again_ids: list[tuple[int, int]] = field(default_factory=list)


class Keeper:
    """Takes the pieces of a log in their order and returns what is kept of each; `added` closes it.

    `logs` are the numbers of retained logs whose files were kept, each with the offset behind them: with what is
    added they are logs again, and nothing that is published there gets an offset that is in the files.
    """

    def __init__(self, logs: Mapping[int, int] | None = None) -> None:
        self._logs = dict(logs or {})
        self.batch = 0  # of the kept ones, counted anew
        self.dropped_records = 0
        self.lost: dict[int, list[Ids]] = {}
        self.unknown: dict[int, list[Ids]] = {}
        self._core = Core(BodyStore())
        self._damaged_upto = 0
        self._number = 0  # of the newest batch of the damaged log
        self.now_ms = self.unix_ms = 0  # the highest seen
        self._names: dict[str, int] = {}
        self._homes: dict[int, int] = {}  # of queues that hold messages of another one
        self._numbers: set[int] = set()
        self.ended: set[int] = set()  # queues of which it says that they did
        self._next: dict[int, int] = {}  # by origin: the sequence above the highest seen
        self._reserved: dict[int, int] = {}
        self._published: dict[int, int] = {}  # by queue: where its next publish begins
        self._suspect: set[int] = set()  # queues with no publish since the last damage

    def keep(self, piece: Piece) -> Batch | None:
        """Return the records of a piece that are kept, as a batch; None if there are none.

        Raises:
            UnknownRecord: a newer version wrote a record that is whole.
        """
        if not piece.whole or self._is_behind_gap(piece):
            self._damaged_upto = self.batch
            self._suspect = set(self._published)
        if piece.header is not None:
            self._number = piece.header.number
            self.now_ms = max(self.now_ms, piece.header.now_ms)
            self.unix_ms = max(self.unix_ms, piece.header.unix_ms)
            if piece.header.kind is not Kind.DATA:
                return None
        for broken in piece.broken:
            self._lose(broken)
        kept = [each for known in piece.records for each in self._kept(known, piece)]
        return self._replayed(kept)

    def _is_behind_gap(self, piece: Piece) -> bool:
        header = piece.header
        return header is not None and 0 < self._number < header.number - 1

    def added(self, lost_bytes: int, *, end_lost: bool) -> Batch | None:
        """Return the records that make the kept ones stand alone, if any bytes are lost."""
        if not lost_bytes:
            return None
        if end_lost:
            self._damaged_upto = self.batch
        self._logs = {number: at for number, at in self._logs.items() if number not in self.ended}
        self._numbers |= self._logs.keys()
        for number, stop in self._logs.items():
            self._next[number] = max(self._next.get(number, 0), stop)
        extra = [*self._missing_names(), *self._reservations(lost_bytes)]
        return self._replayed([record(meta) for meta in extra])

    def risks(self) -> list[QueueRisk]:
        """End the replay and return what is at risk, queue by queue."""
        self._core.opened(1, self.now_ms, self.unix_ms, clean=True, next_batch=self.batch + 1)
        risks = {number: QueueRisk(f"queue {number}") for number in {*self.lost, *self.unknown}}
        for number, queue in self._core.store.by_number.items():
            risk = risks[number] = QueueRisk(queue.name)
            for _, item in queue.group.items():
                risk.live += item.stop - item.first
                if item.block.batch <= self._damaged_upto:
                    risk.again += item.stop - item.first
                    stop = min(item.stop, item.first + SHOWN - len(risk.again_ids))
                    risk.again_ids += [(item.block.origin, s) for s in range(item.first, stop)]
        for number, risk in risks.items():
            risk.lost, risk.unknown = self.lost.get(number, []), self.unknown.get(number, [])
        return [risks[number] for number in sorted(risks)]

    def _replayed(self, records: list[Record]) -> Batch | None:
        if not records:
            return None
        self.batch += 1
        batch = Batch(self.batch, records, self.now_ms, self.unix_ms)
        self._core.replay(batch)
        return batch

    def _kept(self, known: Record, piece: Piece) -> Iterator[Record]:
        meta = decode(known) if piece.typed else _certain(known)
        if meta is None:
            self.dropped_records += 1
            return
        if isinstance(meta, QueueMeta):
            older = self._names.get(meta.name, meta.number)
            if older != meta.number:  # names are unique: the record of its end is lost
                self.ended.add(older)
                yield record(DropMeta(older))
        self._learn(meta, known)
        yield known

    def _learn(self, meta: Meta, known: Record) -> None:
        if isinstance(meta, QueueMeta):
            self._names[meta.name] = meta.number
            self._numbers.add(meta.number)
        elif isinstance(meta, ReserveMeta):
            self._numbers.add(meta.queue)
            self._reserved[meta.queue] = max(self._reserved.get(meta.queue, 0), meta.until)
        elif isinstance(meta, DropMeta):
            self.ended.add(meta.queue)
            self._names = {name: n for name, n in self._names.items() if n != meta.queue}
        elif isinstance(meta, PurgeMeta):
            self._numbers.add(meta.queue)
        elif isinstance(meta, PublishMeta):
            for number, first in meta.targets:
                self._publish(number, first, meta.count)
        for queue, origin, first, count in _ids(meta, known):
            self._numbers |= {queue, origin}
            self._next[origin] = max(self._next.get(origin, 0), first + count)
            if origin != queue:
                self._homes.setdefault(queue, origin)

    def _publish(self, number: int, first: int, count: int) -> None:
        expected = self._published.get(number, first)
        if number in self._suspect and 0 < first - expected < RESERVE_STEP:
            self.unknown.setdefault(number, []).append((number, expected, first - expected))
        self._suspect.discard(number)
        self._published[number] = max(first + count, expected)

    def _lose(self, broken: Record) -> None:
        """Note the ids that a broken record of messages speaks of, as far as it can still be read."""
        self.dropped_records += 1
        try:
            meta = decode(broken)
        except UnknownRecord:
            return
        if isinstance(meta, PublishMeta | CopyMeta | RunMeta):
            for queue, origin, first, count in _ids(meta, broken):
                if 0 < count <= len(broken.tail) // LEAST_MESSAGE_BYTES:
                    self.lost.setdefault(queue, []).append((origin, first, count))
                    self._published[queue] = max(self._published.get(queue, 0), first + count)

    def _missing_names(self) -> Iterator[Meta]:
        nameless = self._numbers - {0} - self.ended - set(self._names.values())
        for number in sorted(nameless, key=lambda each: (each in self._homes, each)):
            home = self._homes.get(number, number)
            named = {n: name for name, n in self._names.items()}
            name = f"salvaged-{number}"
            if home in named and named[home] + DLQ_SUFFIX not in self._names:
                name = named[home] + DLQ_SUFFIX
            self._names[name] = number
            kind: dict[str, int | str] = {"kind": LOG} if number in self._logs else {}
            yield QueueMeta(number, name, home, default_settings() | kind, list(kind))

    def _reservations(self, lost_bytes: int) -> Iterator[Meta]:
        """Reserve above all that the lost bytes can have used: of queue numbers, and of ids of each queue."""
        ids = lost_bytes // LEAST_MESSAGE_BYTES + 2 * RESERVE_STEP
        for number in sorted(self._names.values()):
            used = max(self._reserved.get(number, 0), self._next.get(number, 0))
            yield ReserveMeta(number, used + ids)
        numbers = max(self._numbers | self.ended, default=0) + 1
        numbers = max(numbers, self._reserved.get(0, 1)) + lost_bytes // LEAST_QUEUE_BYTES
        yield ReserveMeta(0, numbers)


def _certain(known: Record) -> Meta | None:
    """Return the meta of a record whose head may be wrong in its type; None if it cannot be trusted."""
    try:
        meta = decode(known)
        fields = msgpack.unpackb(known.meta, use_list=False, strict_map_key=False)
    except (
        UnknownRecord,
        ValueError,
    ):  # every error of unpackb on bytes that are no msgpack is a ValueError
        return None
    if isinstance(meta, PurgeMeta | DropMeta):
        return None
    # An older release wrote fewer fields; those that came since have defaults.
    most = len(meta.__struct_fields__)
    return meta if most - len(meta.__struct_defaults__) <= len(fields) <= most else None


def _ids(meta: Meta, known: Record) -> Iterator[tuple[int, int, int, int]]:
    """Yield (queue, origin, first sequence, count) of the messages that a record speaks of."""
    if isinstance(meta, PublishMeta):
        for number, first in meta.targets:
            yield number, number, first, meta.count
    elif isinstance(meta, RunMeta):
        yield meta.queue, meta.queue, meta.first, meta.count
    elif isinstance(meta, CopyMeta):
        yield meta.queue, meta.origin, meta.sequence, 1
    elif isinstance(meta, ReturnMeta):
        yield meta.queue, meta.origin, meta.sequence, meta.count
    elif isinstance(meta, MoveMeta):
        yield meta.queue, meta.origin, meta.sequence, 1
        yield meta.target, meta.origin, meta.sequence, 1
    elif isinstance(meta, BeginMeta):
        yield meta.queue, meta.origin, meta.first, meta.count
    elif isinstance(meta, AckMeta):
        for _, origin, first, count in RUN.iter_unpack(known.tail):
            yield meta.queue, origin, first, count
