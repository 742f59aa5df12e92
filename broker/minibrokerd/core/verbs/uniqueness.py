"""Publishes with unique keys or dedupe ids: what of them is stored, what is there already, what they replace.

A message whose unique key is held is not stored (`drop`), or takes the place of the one that waits
(`replace`, `keep-latest`); what a worker has is never touched. One whose dedupe id came within the window
before is not stored. All of it is worked out before anything is changed, and happens with the publish or not at
all: in one batch.

What is not stored beside others of its frame has used up a sequence: it is in the record of the publish, and
the record behind that ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from minibroker.contract.ends import Outcome
from minibroker.contract.settings import UNIQUE_MODES
from minibroker.contract.wire import RUN
from minibrokerd.core.model.chains import MOST_TOLD
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.deliveries import Run
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.kept import DEDUPE
from minibrokerd.core.model.messages import MEMORY, Block, Item, Span, is_dead
from minibrokerd.core.model.noting import NOTE_BYTES, RESULT_BYTES, note_ended, write_ended
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import ReturnMeta
from minibrokerd.core.model.refusals import Refused
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.finding import Id, take_waiting
from minibrokerd.log.sizes import PUBLISH_OVERHEAD_BYTES

DROP, _, KEEP_LATEST = UNIQUE_MODES
# Of records of a message, beside itself and its ids: what it ends, what is said of it.
EACH_BYTES: Final = 256 + RESULT_BYTES
# Of one that is replaced: its end, what is kept of that, and what the confirm says.
REPLACED_BYTES: Final = 2 * RUN.size + RESULT_BYTES
# What a confirm says of a message, in the word of a run that has a token elsewhere: its index and one of these.
DUPLICATE: Final = 0
REPLACES: Final = 1
HOW_SHIFT: Final = 32
_NAMES: Final = frozenset({"unique_key", "dedupe_id"})

_Stands = Id | int  # a message: its id, or its index among those of the same publish


class Plan:
    """What one publish part comes to whose messages may be there already.

    `gone` are the indexes of those that are not stored, or are replaced by a later one of the same part.
    """

    __slots__ = (
        "_dedupes", "_delays", "_ids", "_kept_times", "_known", "_latest", "_most_replaced", "_part", "_replaced",
        "_store", "_uniques", "count", "gone", "is_made", "replaced_bytes",
    )  # fmt: skip

    def __init__(
        self, store: Store, part: Any, columns: dict[str, Any], most_replaced: int
    ) -> None:
        self._store = store
        self._part = part
        self._most_replaced = most_replaced
        self.count: int = part.count
        self._delays: Sequence[int] | None = columns.get("delay_ms")
        self._uniques: list[str] | None = columns.get("unique_key")
        self._dedupes: list[str] | None = columns.get("dedupe_id")
        self.is_made = False
        self.replaced_bytes = 0  # of what waits, and is replaced
        self.gone: dict[int, _Stands] = {}  # why: what stands, or what replaced it
        self._known: list[tuple[int, int, _Stands]] = []  # index, how, and the other message
        self._ids: dict[str, _Stands] = {}  # dedupe ids that are new
        self._latest: dict[
            str, int
        ] = {}  # of each unique key, the last of this part that is stored
        self._replaced: list[
            tuple[Id, int]
        ] = []  # what waits, and is replaced by the message with this index
        self._kept_times: dict[
            int, int
        ] = {}  # of messages that are ready when what they replaced would have been

    @property
    def stored(self) -> int:
        """How many of the messages are stored and stay."""
        return self.count - len(self.gone)

    @property
    def replaced(self) -> set[Id]:
        """The ids of what waits, and is replaced."""
        return {id for id, _ in self._replaced}

    def stored_in(self, queue: Queue) -> int:
        """Return how many are stored in a queue, worked out now where that was not done."""
        if not self.is_made:
            self.make(queue)
        return self.stored

    # -- working it out -------------------------------------------------------------------------

    def make(self, queue: Queue | None) -> None:
        """Work it out as of now; nothing is changed. None: the queue is made for this publish."""
        self.is_made = True
        for index in range(self.count):
            dedupe = self._dedupes[index] if self._dedupes is not None else ""
            unique = self._uniques[index] if self._uniques is not None else ""
            stands = self._of_dedupe(queue, dedupe) if dedupe else None
            is_new = stands is None
            if is_new and unique:
                stands = self._of_unique(queue, index, unique)
            if is_new and dedupe:
                self._ids[dedupe] = index if stands is None else stands
            if stands is not None:
                self.gone[index] = stands
                self._known.append((index, DUPLICATE, stands))

    def _of_dedupe(self, queue: Queue | None, id: str) -> _Stands | None:
        """Return what was stored under an id within the window."""
        if id in self._ids:
            return self._ids[id]
        found = None
        if queue is not None:
            found = self._store.kept.get(self._store, DEDUPE, (queue.number, id))
        if found is None:
            return None
        origin, sequence = found
        assert isinstance(origin, int)
        assert isinstance(sequence, int)
        return origin, sequence

    def _of_unique(self, queue: Queue | None, index: int, key: str) -> _Stands | None:
        """Return what holds a key and stands, if the message is dropped for it; else note what it replaces."""
        drops = (self._part.unique_mode or DROP) == DROP
        before = self._latest.get(key)
        if before is not None:
            if drops:
                return before
            self.gone[before] = index
            self._replace(index, before, self._ready_ms(before))
            self._latest[key] = index
            return None
        held = queue.unique if queue is not None else None
        newest = held.newest(key) if held is not None else None
        if drops and newest is not None:
            return newest
        for id in reversed(held.holders(key)) if held is not None and newest is not None else ():
            assert queue is not None
            if len(self._replaced) >= self._most_replaced:
                break
            item = waiting_item(self._store, queue, id)
            if item is not None:
                self._replaced.append((id, index))
                self.replaced_bytes += item.block.cost(id[1], id[1] + 1)
                self._replace(index, id, item.ready_at_ms)
        self._latest[key] = index
        return None

    def _replace(self, index: int, replaced: _Stands, ready_at_ms: int) -> None:
        self._known.append((index, REPLACES, replaced))
        if self._part.unique_mode == KEEP_LATEST:
            self._kept_times[index] = min(self._kept_times.get(index, ready_at_ms), ready_at_ms)

    def _ready_ms(self, index: int) -> int:
        delay_ms: int = self._part.delay_ms if self._delays is None else self._delays[index]
        return self._kept_times.get(index, self._store.now_ms + delay_ms)

    # -- doing it -------------------------------------------------------------------------------

    def living(self, block: Block, spans: list[Span]) -> list[Span]:
        """Return the spans of the messages that stay, each with its time."""
        marks = sorted({*self.gone, *self._kept_times}, reverse=True)
        living: list[Span] = []
        for span in spans:
            rest: Span | None = span
            while rest is not None and marks and marks[-1] + block.first < rest.stop:
                index = marks.pop()
                one, rest = _cut_out(rest, block.first + index, living)
                if index not in self.gone:
                    one.ready_at_ms = self._kept_times[index]
                    living.append(one)
            if rest is not None:
                living.append(rest)
        return living

    def apply(self, queue: Queue, block: Block | None, by: str) -> None:
        """End what is replaced, and record what the publish does not say; `block`: None if nothing is stored."""
        store, durability = self._store, queue.durability
        if block is not None:
            self._end_gone(queue, block)
            for index, ready_at_ms in self._kept_times.items():
                if index not in self.gone and durability != MEMORY:
                    _write_time(store, queue, block.first + index, ready_at_ms)
        ended = []
        for id, index in self._replaced:
            assert block is not None, "what replaces is stored"
            item = take_waiting(store, queue, *id) or _take_entering(store, queue, id)
            assert item is not None, "it waited when this was worked out, in the same apply"
            queue.count_out(item.block, item.first, item.stop)
            run = (0, *id, 1)
            logged = [run] if item.block.durability != MEMORY else []
            said = f"{queue.number}-{block.first + index}" + (f" ({by})" if by else "")
            note_ended(store, queue, Outcome.REPLACED, [run], logged, said)
            ended += logged
        write_ended(store, queue, ended)
        queue.group.counters["replaced"] += len(self._replaced)
        queue.group.counters["duplicates"] += sum(how == DUPLICATE for _, how, _ in self._known)
        window_ms = self._part.dedupe_window_ms or queue.setting("dedupe_window_ms")
        for name, stands in self._ids.items():
            key, until_unix_ms = (queue.number, name), store.unix_ms + window_ms
            value = self._id(queue, block, stands)
            in_log = durability != MEMORY
            forgotten = store.kept.put(store, DEDUPE, key, value, until_unix_ms, logged=in_log)
            if forgotten is not None:
                _count_forgotten(store, forgotten[0])
        if self._ids and durability != MEMORY:
            queue.last_batch = store.open_batch

    def _end_gone(self, queue: Queue, block: Block) -> None:
        """End the messages of the record that are not stored."""
        store, ended = self._store, []
        for index, stands in self.gone.items():
            run = (0, block.origin, block.first + index, 1)
            ended.append(run)
            queue.count_out(block, block.first + index, block.first + index + 1)
            origin, sequence = self._id(queue, block, stands)
            is_replaced = isinstance(stands, int) and stands > index
            outcome = Outcome.REPLACED if is_replaced else Outcome.DUPLICATE
            logged = [run] if block.durability != MEMORY else []
            note_ended(store, queue, outcome, [run], logged, f"{origin}-{sequence}")
        if block.durability != MEMORY:
            write_ended(store, queue, ended)

    def known_runs(self, queue: Queue, block: Block | None) -> list[Run]:
        """Return what the confirm says of single messages: index and how, and the message that stands or stood."""
        return [
            (how << HOW_SHIFT | index, *self._id(queue, block, stands), 1)
            for index, how, stands in self._known
        ]

    @staticmethod
    def _id(queue: Queue, block: Block | None, stands: _Stands) -> Id:
        if not isinstance(stands, int):
            return stands
        assert block is not None, "one of the same publish is stored"
        return queue.number, block.first + stands


def bytes_of_names(frame: Frame) -> int:
    """Return how many bytes of records unique keys and dedupe ids add to those of a frame, at the most."""
    count = sum(
        part.count for part in frame.parts if _NAMES & set(getattr(part, "columns", None) or ())
    )
    return len(frame.columns) + EACH_BYTES * count if count else 0


def check_plan(store: Store, frame: Frame, part: Any, more_bytes: int) -> int:
    """Check that a publish with unique keys or dedupe ids can be one batch, and that its mode is one.

    `more_bytes` of that are for the names of the frame, and for what else its step does. Returns how many messages
    it may replace in that batch: of one key there may be very many after a redrive.

    Raises:
        Refused: `bad_value`; `too_large`.
    """
    if (part.unique_mode or DROP) not in UNIQUE_MODES:
        known = ", ".join(UNIQUE_MODES)
        raise Refused(
            "bad_value", f"unique_mode is {part.unique_mode!r:.100}; it must be one of {known}"
        )
    needed = frame.size + PUBLISH_OVERHEAD_BYTES * len(frame.parts) + more_bytes
    if store.chains.ids and part.unique_mode:
        needed += NOTE_BYTES * MOST_TOLD  # of those that wait for what is replaced
    if needed > store.sizes.apply_bytes:
        raise Refused(
            "too_large",
            f"{part.count} messages with unique keys or dedupe ids in a frame of {frame.size} bytes exceed "
            f"{store.sizes.apply_bytes} with their records; nothing was stored, publish fewer at a time",
        )
    own: int = part.count
    return (store.sizes.apply_bytes - needed) // REPLACED_BYTES // max(len(frame.parts), 1) + own


def waiting_item(store: Store, queue: Queue, id: Id) -> Item | None:
    """Return what has a message that is ready, delayed or about to be; None: a worker has it, or it is dead."""
    item = queue.group.lanes.find(*id) or queue.group.later.find(*id)
    if item is not None:
        assert not isinstance(item, ColdRun), "what holds a unique key is in memory"
        return None if is_dead(item) else item
    found = _entering(store, queue, id)
    return None if found is None else found[1]


def _entering(store: Store, queue: Queue, id: Id) -> tuple[int, Span] | None:
    """Return the place of a publish that is not synced, from the newest on, and its span that has a message."""
    if not queue.group.entering:
        return None
    origin, sequence = id
    for back, (_, entered, block, spans, _) in enumerate(reversed(store.entering), 1):
        if (
            entered is queue
            and block.origin == origin
            and 0 <= sequence - block.first < block.count
        ):
            return next(
                ((-back, span) for span in spans if span.first <= sequence < span.stop), None
            )
    return None


def _take_entering(store: Store, queue: Queue, id: Id) -> Item | None:
    """Take a message out of a publish that is not synced."""
    found = _entering(store, queue, id)
    if found is None:
        return None
    at, span = found
    batch, _, block, spans, count = store.entering[at]
    left = [other for other in spans if other is not span]
    one, rest = _cut_out(span, id[1], left)
    left += [] if rest is None else [rest]
    left.sort(key=lambda each: each.first)
    store.entering[at] = (batch, queue, block, left, count - 1)
    queue.group.entering -= 1
    return one


def _cut_out(span: Span, sequence: int, before: list[Span]) -> tuple[Span, Span | None]:
    """Return one message of a span as a span of its own, and what is behind it; what is before it is appended."""
    if sequence > span.first:
        rest = span.cut(sequence)
        before.append(span)
        span = rest
    return span, span.cut(sequence + 1) if span.stop > sequence + 1 else None


def _count_forgotten(store: Store, number: int | str) -> None:
    queue = store.by_number.get(number) if isinstance(number, int) else None
    if queue is not None:  # else it is gone, and its ids mean nothing any more
        queue.group.counters["dedupe_forgotten"] += 1


def _write_time(store: Store, queue: Queue, sequence: int, ready_at_ms: int) -> None:
    """Record that a message which was just published is ready at another time than its delay says."""
    left_ms = max(ready_at_ms - store.now_ms, 0)
    meta = ReturnMeta(
        queue.number,
        queue.number,
        sequence,
        0,
        ready_at_ms,
        left_ms,
        store.unix_ms,
        (0, 0, 0),
        0,
        False,
        None,
    )
    store.emit(meta)
