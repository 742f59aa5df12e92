"""What the records of a segment come to, without the bodies: the content of its side index.

A start reads digests instead of the records. A million publishes become a run of places (cold.py), acks become
intervals, and what else was said of a message that has ended by then is left out. What remains is kept as
it is. It is applied in this order: first the runs, then the other records in their order, then the acks. That is
the order of the log as far as it matters: a publish comes before anything else that is said of its messages,
and an ack after it. A purge or the end of a queue is about all that came before: what was gathered is closed
then.

The payload is items back to back: a kind, a size, and that many bytes. So two payloads, one behind the other,
are one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import Any, Final, NamedTuple

from minibroker.contract import limits
from minibroker.contract.settings import DURABILITIES
from minibroker.contract.wire import RUN
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.extents import Bodies
from minibrokerd.core.model.kept import Key
from minibrokerd.core.model.messages import FRAME_BYTES, MESSAGE_BYTES
from minibrokerd.core.model.records import (
    AckMeta,
    BeginMeta,
    CopyMeta,
    CopyPartMeta,
    CopyRunMeta,
    CopySomeMeta,
    DamagedMeta,
    DropMeta,
    EndMeta,
    ExtendMeta,
    FrameMeta,
    Meta,
    MoveMeta,
    PublishMeta,
    PurgeMeta,
    QueueMeta,
    ReserveMeta,
    ReturnMeta,
    StateMeta,
    record,
)
from minibrokerd.log.seam import Digested, Record

RUNS: Final = 1  # frames in their order, which a start makes a ColdRun of
RECORD: Final = 2  # a record, as it was written
PLACED: Final = 3  # a record whose tail is read from the log: bodies do not belong here
ACKS: Final = 4  # ascending (origin, first, stop) of a queue
OUTCOMES: Final = 5  # of the frames of a session that it may ask about: FRAME records
_ITEM: Final = Struct("<BI")
_RUN: Final = Struct("<IQIQQQ")  # queue, first, frames, stop, ready_at_ms, cost
_RECORD: Final = Struct("<BI")  # type, size of the meta
_PLACED: Final = Struct("<BI")  # type, place
_INTERVAL: Final = Struct("<IQQ")
_OUTCOMES: Final = Struct("<QQQQ")  # session, answered_below, highest sequence, newest unix_ms
# Bytes of a publish tail that say how long a message is: `cost` has them, too.
_OWN_LENGTHS: Final = 8
_FEW: Final = 16  # messages that something is about: it is noted for each of them
_PRUNE_AT: Final = 4_096  # outcomes kept of one session before the forgotten ones are dropped


class _Run:
    """Frames of one queue, one behind the other; see `ColdRun`."""

    __slots__ = ("cost", "first", "firsts", "places", "queue", "ready_at_ms", "stop")

    def __init__(self, queue: int, first: int, ready_at_ms: int) -> None:
        self.queue = queue
        self.first = self.stop = first
        self.ready_at_ms = ready_at_ms
        self.firsts = array("I")
        self.places = array("I")
        self.cost = 0


_Item = tuple[int, bytes]
_Kept = dict[
    int, tuple[Meta, bytes]
]  # what has the outcome of a frame, and the runs that were lost, by sequence
_Add = Callable[["Digest", Any, Record, int], None]
_ADD: Final[dict[type[Meta], _Add]] = {}


def _adds(*metas: type[Meta]) -> Callable[[_Add], _Add]:
    def enter(method: _Add) -> _Add:
        _ADD.update(dict.fromkeys(metas, method))
        return method

    return enter


class Together:
    """What is about consecutive messages, more than a few, until all of these have ended; each ends once."""

    __slots__ = ("_longest", "_origins")

    def __init__(self) -> None:
        # By origin, in the order of their first one: first, stop, how many live, and what is about them.
        self._origins: dict[int, list[list[int]]] = {}
        self._longest = 0

    def __bool__(self) -> bool:
        return bool(self._origins)

    def add(self, origin: int, first: int, stop: int, what: int) -> None:
        """Note what is about the messages from `first` to below `stop`."""
        insort(self._origins.setdefault(origin, []), [first, stop, stop - first, what])
        self._longest = max(self._longest, stop - first)

    def end(self, origin: int, first: int, stop: int) -> list[int]:
        """Some messages have ended; return what is about none that lives any more."""
        there = self._origins.get(origin)
        if there is None:
            return []
        low = bisect_left(there, [first - self._longest])
        high = bisect_left(there, [stop])
        ended = []
        for each in there[low:high]:
            each[2] -= max(min(each[1], stop) - max(each[0], first), 0)
            if each[2] <= 0:
                ended.append(each[3])
        if ended:
            there[low:high] = [each for each in there[low:high] if each[2] > 0]
            if not there:
                del self._origins[origin]
        return ended


class Digest:
    """Takes the records of one segment in their order; `seal` returns the payload and begins anew."""

    def __init__(self) -> None:
        self._done: list[bytes] = []
        self._runs: list[_Run] = []
        self._last: dict[int, _Run] = {}  # the run of a queue that may go on
        self._others: list[_Item | None] = []
        self._said: dict[tuple[int, int], list[int]] = {}  # which of the others are about a message
        self._left: dict[int, int] = {}  # how many of them live, of one that is about several
        self._together = Together()  # which are about consecutive ones
        self._acks: dict[int, list[list[int]]] = {}
        self._outcomes: dict[int, _Kept] = {}
        self._states: dict[tuple[int, Key], _Item] = {}  # the last one of each kind and key

    def adopt(self, payload: bytes) -> None:
        """Begin with what an older payload says of the same segment."""
        self._close()
        self._done.append(payload)

    def add(self, record: Record, says: Meta, place: int) -> None:
        """Take one record, which says `says`; `place` says in 4 bytes where it stands."""
        _ADD[type(says)](self, says, record, place)

    def seal(self) -> bytes:
        """Return the payload of what was added since the last call."""
        self._close()
        for session, outcomes in self._outcomes.items():
            self._done.append(_framed((OUTCOMES, _packed_outcomes(session, outcomes))))
        self._done += map(_framed, self._states.values())
        payload = b"".join(self._done)
        self._done, self._outcomes, self._states = [], {}, {}
        return payload

    def _close(self) -> None:
        """Write down what was gathered, so that what comes next is applied after it."""
        done = self._done
        done += [_framed((RUNS, _packed_run(run))) for run in self._runs]
        done += [_framed(item) for item in self._others if item is not None]
        for queue, intervals in self._acks.items():
            packed = [_INTERVAL.pack(*interval) for interval in _merged(intervals)]
            done.append(_framed((ACKS, queue.to_bytes(4, "little") + b"".join(packed))))
        self._runs, self._last, self._others = [], {}, []
        self._said, self._left, self._acks = {}, {}, {}
        self._together = Together()

    def _run(
        self,
        queue: int,
        first: int,
        count: int,
        says: PublishMeta | CopyRunMeta,
        size: int,
        at: int,
    ) -> None:
        run = self._last.get(queue)
        if run is None or run.stop != first or first - run.first >= 2**32:
            run = _Run(queue, first, says.ready_at_ms)
            self._last[queue] = run
            self._runs.append(run)
        run.firsts.append(run.stop - run.first)
        run.places.append(at)
        run.stop += count
        # As `cost_of`; a call more would be one for every publish.
        run.cost += size + (MESSAGE_BYTES - _OWN_LENGTHS + FRAME_BYTES // count) * count

    @_adds(PublishMeta)
    def _publish(self, says: PublishMeta, record: Record, at: int) -> None:
        if stands_alone(says) or says.columns:
            if says.count == 1:
                for target in says.targets:
                    self._said.setdefault(target, []).append(len(self._others))
                self._left[len(self._others)] = len(says.targets)
            self._keep_place(record, at)
        else:
            for queue, first in says.targets:
                self._run(queue, first, says.count, says, len(record.tail), at)
        if says.session:
            self._outcome(says, b"")

    @_adds(CopyRunMeta)
    def _copy_run(self, says: CopyRunMeta, record: Record, at: int) -> None:
        if stands_alone(says):
            self._keep_place(record, at)
        else:
            self._run(says.queue, says.first, says.count, says, len(record.tail), at)

    @_adds(CopyMeta, CopyPartMeta, CopySomeMeta)
    def _copy(self, says: Meta, record: Record, at: int) -> None:
        self._keep_place(record, at)

    def _keep_place(self, record: Record, at: int) -> None:
        self._others.append((PLACED, _PLACED.pack(record.type, at)))

    @_adds(BeginMeta, ExtendMeta)
    def _begin(self, says: BeginMeta, record: Record, at: int) -> None:
        self._note(says.origin, says.first, says.count)
        self._keep(says, record, at)

    @_adds(ReturnMeta)
    def _return(self, says: ReturnMeta, record: Record, at: int) -> None:
        self._note(says.origin, says.sequence, says.count)
        self._keep(says, record, at)

    @_adds(QueueMeta, ReserveMeta, MoveMeta, DamagedMeta, EndMeta)
    def _keep(self, says: Meta, record: Record, at: int) -> None:
        self._others.append((RECORD, _packed(record, bytes(record.tail))))

    @_adds(PurgeMeta, DropMeta)
    def _end_all(self, says: Meta, record: Record, at: int) -> None:
        self._close()
        self._keep(says, record, at)
        self._close()

    @_adds(AckMeta)
    def _ack(self, says: AckMeta, record: Record, at: int) -> None:
        intervals = self._acks.setdefault(says.queue, [])
        for _, origin, first, count in RUN.iter_unpack(record.tail):
            if self._said:
                self._forget(origin, first, count)
            if self._together:
                for index in self._together.end(origin, first, first + count):
                    self._others[index] = None
            last = intervals[-1] if intervals else None
            if last is not None and last[2] == first and last[0] == origin:
                last[2] = first + count
            else:
                intervals.append([origin, first, first + count])
        if says.session:
            self._outcome(says, b"")

    @_adds(FrameMeta)
    def _frame(self, says: FrameMeta, record: Record, at: int) -> None:
        self._outcome(says, bytes(record.tail))

    @_adds(StateMeta)
    def _state(self, says: StateMeta, record: Record, at: int) -> None:
        self._states[says.kind, says.key] = RECORD, _packed(record, b"")

    def _note(self, origin: int, first: int, count: int) -> None:
        """Note what the next of the others is about: it is dropped once all these messages have ended."""
        if count > limits.MAX_RUNS_PER_FRAME:
            return  # no broker writes that
        if count > _FEW:
            self._together.add(origin, first, first + count, len(self._others))
            return
        for sequence in range(first, first + count):
            self._said.setdefault((origin, sequence), []).append(len(self._others))
        if count > 1:
            self._left[len(self._others)] = count

    def _forget(self, origin: int, first: int, count: int) -> None:
        keys: Iterable[tuple[int, int]] = ((origin, first + at) for at in range(count))
        if count > len(self._said):  # however many a record claims: what is here bounds the work
            keys = [key for key in self._said if key[0] == origin and 0 <= key[1] - first < count]
        for key in keys:
            for index in self._said.pop(key, ()):
                left = self._left.pop(index, 1) - 1
                if left:
                    self._left[index] = left
                else:
                    self._others[index] = None

    def _outcome(self, says: PublishMeta | AckMeta | FrameMeta, tail: bytes) -> None:
        outcomes = self._outcomes.setdefault(says.session, {})
        outcomes[says.sequence] = says, tail
        if len(outcomes) > _PRUNE_AT:
            self._outcomes[says.session] = _still_asked(outcomes)


def stands_alone(says: PublishMeta | CopyRunMeta) -> bool:
    """Whether there is more to know of messages than where they are, columns apart."""
    return bool(says.delay_ms or says.key or says.own_priority or says.own_ttl_ms)


def cost_of(tail_bytes: int, count: int) -> int:
    """Return about how many bytes a plain publish keeps in use; as `Block.cost`."""
    return tail_bytes + (MESSAGE_BYTES - _OWN_LENGTHS + FRAME_BYTES // count) * count


def _outcome_of(says: Meta) -> FrameMeta:
    """Return the outcome that a record has beside what it says, as a record of its own."""
    if isinstance(says, FrameMeta):
        return says
    assert isinstance(says, PublishMeta | AckMeta)
    result: dict[str, int | str] = {"lost": 0}
    if isinstance(says, PublishMeta):
        origin, first = says.targets[-1]
        durability = DURABILITIES[says.durability]
        result = {"origin": origin, "first": first, "durability": durability}
    return FrameMeta(
        says.session,
        says.sequence,
        says.answered_below,
        says.checksum,
        says.unix_ms,
        says.size,
        [result],
    )


def items(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of each item of a payload."""
    at = 0
    while at < len(payload):
        kind, size = _ITEM.unpack_from(payload, at)
        at += _ITEM.size
        yield kind, payload[at : at + size]
        at += size


def read_run(content: bytes, part: Digested, bodies: Bodies) -> ColdRun:
    """Return the run in an item of kind RUNS of a digest."""
    queue, first, frames, stop, ready_at_ms, cost = _RUN.unpack_from(content)
    middle = _RUN.size + 4 * frames
    shelf = bodies.shelf_of(part, content[middle:])
    run = ColdRun(queue, shelf, part.number, first, ready_at_ms)
    run.firsts.frombytes(content[_RUN.size : middle])
    run.stop, run.left, run.cost = stop, stop - first, cost
    return run


def read_record(content: bytes) -> Record:
    """Return the record in an item of kind RECORD."""
    type_, meta_bytes = _RECORD.unpack_from(content)
    tail_at = _RECORD.size + meta_bytes
    return Record(type_, content[_RECORD.size : tail_at], content[tail_at:])


def read_placed(content: bytes) -> tuple[int, int]:
    """Return type and place of the record that an item of kind PLACED names."""
    type_, place = _PLACED.unpack(content)
    return type_, place


def read_acks(content: bytes) -> tuple[int, Iterator[tuple[int, int, int]]]:
    """Return the queue, and the (origin, first, stop), of an item of kind ACKS."""
    return int.from_bytes(content[:4], "little"), _INTERVAL.iter_unpack(content[4:])


class Outcomes(NamedTuple):
    """An item of kind OUTCOMES: what a session may ask about, `answered_below` and above; not decoded yet."""

    session: int
    answered_below: int
    highest: int
    seen_unix_ms: int
    content: bytes

    def records(self) -> Iterator[Record]:
        """Yield the FRAME records."""
        for _, content in items(self.content):
            yield read_record(content)


def read_outcomes(content: bytes) -> Outcomes:
    """Return the head of an item of kind OUTCOMES."""
    session, below, highest, seen_unix_ms = _OUTCOMES.unpack_from(content)
    return Outcomes(session, below, highest, seen_unix_ms, content[_OUTCOMES.size :])


def _packed_outcomes(session: int, outcomes: _Kept) -> bytes:
    kept = _still_asked(outcomes)
    metas = [(_outcome_of(says), tail) for says, tail in kept.values()]
    below = max(meta.answered_below for meta, _ in metas)
    seen_unix_ms = max(meta.unix_ms for meta, _ in metas)
    head = _OUTCOMES.pack(session, below, max(kept), seen_unix_ms)
    return head + b"".join(_framed((RECORD, _packed(record(meta), tail))) for meta, tail in metas)


def _framed(item: _Item) -> bytes:
    kind, content = item
    return _ITEM.pack(kind, len(content)) + content


def _packed(record: Record, tail: bytes) -> bytes:
    return _RECORD.pack(record.type, len(record.meta)) + record.meta + tail


def _packed_run(run: _Run) -> bytes:
    head = _RUN.pack(run.queue, run.first, len(run.firsts), run.stop, run.ready_at_ms, run.cost)
    return head + run.firsts.tobytes() + run.places.tobytes()


def _merged(intervals: list[list[int]]) -> list[list[int]]:
    """Return intervals in order, those that touch as one."""
    intervals.sort()
    merged: list[list[int]] = []
    for interval in intervals:
        if merged and merged[-1][0] == interval[0] and merged[-1][2] >= interval[1]:
            merged[-1][2] = max(merged[-1][2], interval[2])
        else:
            merged.append(interval)
    return merged


def _still_asked(outcomes: _Kept) -> _Kept:
    """Return the outcomes that the client of the session may ask about again."""
    below = max(says.answered_below for says, _ in outcomes.values())  # type: ignore[attr-defined]
    return {sequence: kept for sequence, kept in outcomes.items() if sequence >= below}
