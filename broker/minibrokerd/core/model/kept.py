"""What is kept beside queues and messages: entries of a kind and a key, each with a value and mostly an end.

One record says one of them (STATE), and the last one of its kind and key stands: in a replay, and in a digest,
which has the last one alone. An entry is over at `expires_unix_ms` by the wall clock, without a record; those that
end within the same 8 seconds share a timer and are taken out in steps. What a kind needs beside that is its row of
`KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from minibroker.contract import limits
from minibrokerd.core.model.messages import NEVER
from minibrokerd.core.model.records import StateMeta
from minibrokerd.core.model.sums import Sums

if TYPE_CHECKING:
    from minibrokerd.core.model.state import Store
    from minibrokerd.core.model.wheel import Timer

Key = tuple[int | str, ...]
Value = tuple[int | bytes, ...]

ENTRY_BYTES: Final = 120  # of memory, and about of the log, beside the bytes of key and value
BUCKET_MS: Final = 8_192  # entries that end within so long share a timer
STEP_ENTRIES: Final = 1_000  # taken out in one apply, below 1 ms


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of entries; `key` and `value` are the types of theirs.

    `copied`: an entry outlives the segment of its record. `most`: beyond so many the oldest is forgotten; 0: no
    bound; so `most_bytes`, of memory. `remembers` says of a value whether it is kept in memory; None: each is.
    """

    number: int
    name: str
    key: tuple[type, ...]
    value: tuple[type, ...]
    copied: bool = True
    most: int = 0
    most_bytes: int = 0
    remembers: Callable[[Value], bool] | None = None


# A session of which outcomes are forgotten, by its id: those below a sequence, and 1 if its client may still ask.
# While the record lives, that client is told that they are; the outcomes themselves stand in older segments.
ENDED: Final = Kind(
    1, "ended session", (int,), (int, int), copied=False, most=limits.MAX_SESSIONS,
    remembers=lambda value: bool(value[1]),
)  # fmt: skip
# A message that was cancelled while it was worked on, by its id: the token of that. Its worker may be away.
CANCELLED: Final = Kind(2, "cancelled message", (int, int), (int,), most=100_000)
# A dedupe id of a queue, by its number: the id of the message that was stored under it first.
DEDUPE: Final = Kind(4, "dedupe id", (int, str), (int, int), most=1_000_000)
# A schedule, by its name (scheduled.py): what it was asked for, its job, the next instant and the last one, flags
# (1: paused), and how many jobs in a row were late.
SCHEDULE: Final = Kind(5, "schedule", (str,), (bytes, bytes, int, int, int, int))
# A pause, by what (1: a queue, 3: clients), the number of the queue, and the name of the clients: since
# when, and the rest as a map (pauses.py).
PAUSE: Final = Kind(6, "pause", (int, int, str), (int, bytes))
# Tokens of a rate that are taken (rates.py), by queue and key (empty: those of the queue itself): up to when.
RATE: Final = Kind(7, "rate", (int, str), (int,))
# Set for a key of a queue (keys.py): its weight, until when it is paused (0: it is not), since when and by whom.
KEY: Final = Kind(11, "key", (int, str), (int, int, int, bytes))
# The circuit of a queue that is not closed (circuits.py), by its number: state, since and until (unix ms), why.
CIRCUIT: Final = Kind(8, "circuit", (int,), (int, int, int, bytes))
# The circuit of a key that is not closed (key_circuits.py), by queue and key: since and until (unix ms), why.
KEY_CIRCUIT: Final = Kind(14, "circuit of a key", (int, str), (int, int, bytes), most=100_000)
# A redrive that goes on by itself (redrives.py), by its DLQ: as it stands (0), and what it is to do (1).
REDRIVE: Final = Kind(10, "redrive", (int, int), (bytes,))
# What a message waits for that comes after others (chains.py), by its id: part 0 says what and how it goes on, or
# how they ended; each other one what some of them came to.
AFTER: Final = Kind(13, "message after others", (int, int, int), (bytes,))
# An exchange (exchanges.py), by its name: its number, its type, what becomes of what no binding takes, and the
# name of the alternate exchange.
EXCHANGE: Final = Kind(15, "exchange", (str,), (int, bytes, bytes, bytes))
# A binding (exchanges.py), by numbers: its exchange, the queue or exchange that it leads to; and its pattern.
BINDING: Final = Kind(16, "binding", (int, int, int, str), ())
# A policy (policies.py), by 1 for a limit of an operator or 0, and its name: its priority, pattern, and settings.
POLICY: Final = Kind(20, "policy", (int, str), (int, bytes, bytes))
# The schema of a queue (schemas.py), by its number: a JSON text.
SCHEMA: Final = Kind(25, "schema", (int,), (bytes,))
# What a message came to, by its id: an `Outcome` (results.py), the result or the error, when it ended, and the
# number of the queue in which it did.
RESULT: Final = Kind(
    3, "result", (int, int), (int, bytes, int, int), most=limits.MAX_RESULTS,
    most_bytes=limits.MAX_RESULTS_BYTES,
)  # fmt: skip
# A session that takes messages (verbs/takers.py), by its id: the name of its client, and numbers of queues.
TAKING: Final = Kind(12, "session that takes messages", (int,), (bytes, bytes))
# An exclusive queue (owners.py), by its number: the session that it belongs to, and the name of its client.
EXCLUSIVE: Final = Kind(21, "exclusive queue", (int,), (int, bytes))
# A group of a retained log (retained.py), by the number of its queue: that of the log, the next offset, the
# generation, and the time from which it starts (unix ms), while no offset is known; 0: one is. Below an offset
# (0: none) it gets messages of one key alone.
LOG_GROUP: Final = Kind(17, "group of a log", (int,), (int, int, int, int, int, bytes))
# The files of a retained log, by the number of its queue: the offset below which they were purged, and the one up
# to which they have what was published.
LOG_FILES: Final = Kind(18, "files of a log", (int,), (int, int))
# A temporary queue that ended as nobody used it (verbs/unused.py), by its name: when, and with how many messages.
UNUSED: Final = Kind(22, "temporary queue that ended", (str,), (int, int), most=limits.MAX_UNUSED)
_ALL: Final = (
    ENDED, CANCELLED, RESULT, DEDUPE, SCHEDULE, PAUSE, RATE, CIRCUIT, REDRIVE, KEY, TAKING, AFTER,
    KEY_CIRCUIT, EXCHANGE, BINDING, POLICY, EXCLUSIVE,
    LOG_GROUP, LOG_FILES, SCHEMA, UNUSED,
)  # fmt: skip
KINDS: Mapping[int, Kind] = {kind.number: kind for kind in _ALL}


class Entry:
    """One entry that stands; `batch` has its record, NEVER if none has."""

    __slots__ = ("batch", "expires_unix_ms", "key", "kind", "value")

    def __init__(
        self, kind: Kind, key: Key, value: Value, expires_unix_ms: int, batch: int
    ) -> None:
        self.kind = kind
        self.key = key
        self.value = value
        self.expires_unix_ms = expires_unix_ms  # 0: not by time
        self.batch = batch

    def size(self) -> int:
        """Return about how many bytes it takes, of memory and of the log."""
        plain = (*self.key, *self.value)
        return ENTRY_BYTES + sum(8 if isinstance(each, int) else len(each) for each in plain)


class Kept:
    """All entries, by kind and key."""

    __slots__ = ("_buckets", "_bytes", "_kinds", "_most_bytes", "_sums")

    def __init__(self, sums: Sums) -> None:
        self._kinds: dict[int, dict[Key, Entry]] = {}
        self._buckets: dict[int, dict[Entry, None]] = {}  # by the end of each, in BUCKET_MS
        self._bytes: dict[int, int] = {}  # by kind, of those that have a bound
        self._most_bytes: dict[int, int] = {}  # by kind, where there is less memory than its bound
        self._sums = sums

    def __iter__(self) -> Iterator[Entry]:
        return (entry for entries in self._kinds.values() for entry in entries.values())

    def count(self, kind: Kind) -> int:
        """Return how many entries of a kind stand."""
        return len(self._kinds.get(kind.number, ()))

    def bytes_of(self, kind: Kind) -> int:
        """Return about how many bytes those of a kind take that has a bound of bytes."""
        return self._bytes.get(kind.number, 0)

    def of(self, kind: Kind) -> Iterator[Entry]:
        """Return the entries of a kind."""
        return iter(self._kinds.get(kind.number, {}).values())

    def get(self, store: Store, kind: Kind, key: Key) -> Value | None:
        """Return the value of an entry; None: there is none, or it is over."""
        entry = self.find(store, kind, key)
        return entry.value if entry is not None else None

    def find(self, store: Store, kind: Kind, key: Key) -> Entry | None:
        """Return an entry; None: there is none, or it is over."""
        entry = self._kinds.get(kind.number, {}).get(key)
        if entry is None or 0 < entry.expires_unix_ms <= store.unix_ms:
            return None
        return entry

    def put(
        self,
        store: Store,
        kind: Kind,
        key: Key,
        value: Value,
        expires_unix_ms: int = 0,
        *,
        logged: bool = True,
    ) -> Key | None:
        """Let an entry stand from now on; `logged`: over a restart, too, once the open batch is safe.

        Returns the key of one that had to be forgotten for it, where its kind has a bound.
        """
        entry = Entry(kind, key, value, expires_unix_ms, NEVER)
        self.forget(kind, key)
        if logged:
            self._emit(store, entry)
        forgotten = None
        if kind.remembers is None or kind.remembers(value):
            forgotten = self._add(entry)
            self._settle_in(store, entry)
        return forgotten

    def end(self, store: Store, kind: Kind, key: Key) -> None:
        """Let an entry stand no more, over a restart, too."""
        entry = self._kinds.get(kind.number, {}).get(key)
        if entry is not None:
            self.forget(kind, key)
            if entry.batch != NEVER:
                store.emit(StateMeta(kind.number, key, None, 0))

    def forget(self, kind: Kind, key: Key) -> None:
        """Take an entry out of memory, if there is one; what the log says of it stays."""
        entries = self._kinds.get(kind.number, {})
        entry = entries.pop(key, None)
        if entry is None:
            return
        self._sums.kept_bytes -= entry.size()
        if kind.most_bytes:
            self._bytes[kind.number] -= entry.size()
        if kind.copied:
            self._sums.kept_log_bytes -= entry.size()
            if entry.batch != NEVER:
                self._sums.standing.drop(entry.batch, entry)
        number = _bucket_of(entry)
        bucket = self._buckets.get(number)
        if bucket is not None:
            bucket.pop(entry, None)

    def limit(self, kind: Kind, most_bytes: int) -> None:
        """Keep no more of a kind than this from its next entry on, nor more than its bound."""
        self._most_bytes[kind.number] = min(most_bytes, kind.most_bytes)

    # -- the log --------------------------------------------------------------------------------

    def replayed(self, meta: StateMeta, batch: int) -> Kind:
        """Apply a record of a log, before `opened`; return the kind of its entry.

        Raises:
            ValueError: key or value are not those of their kind.
        """
        kind = KINDS[meta.kind]
        known = meta.value is None or tuple(map(type, meta.value)) == kind.value
        if tuple(map(type, meta.key)) != kind.key or not known:
            raise ValueError(f"a kept {kind.name} is {meta.key!r:.200}: {meta.value!r:.200}")
        self.forget(kind, meta.key)
        if meta.value is not None and (kind.remembers is None or kind.remembers(meta.value)):
            self._add(Entry(kind, meta.key, meta.value, meta.expires_unix_ms, batch))
        return kind

    def opened(self, store: Store) -> None:
        """End the replay: what is over is forgotten, and the rest waits for its end."""
        for entry in list(self):
            if 0 < entry.expires_unix_ms <= store.unix_ms:
                self.forget(entry.kind, entry.key)
            else:
                self._settle_in(store, entry)

    def copy(self, store: Store, entry: Entry, upto: int) -> int:
        """Write an entry again if its record stands in a batch up to `upto`; return about how many bytes it wrote.

        The caller took it out of `Standing`.
        """
        if 0 < entry.expires_unix_ms <= store.unix_ms:
            self.forget(entry.kind, entry.key)
            return 0
        copied_bytes = 0
        if entry.batch <= upto:
            self._emit(store, entry)
            copied_bytes = entry.size()
        store.standing.put(entry.batch, entry, None)
        return copied_bytes

    def _emit(self, store: Store, entry: Entry) -> None:
        store.emit(StateMeta(entry.kind.number, entry.key, entry.value, entry.expires_unix_ms))
        entry.batch = store.open_batch

    # -- memory, and the end --------------------------------------------------------------------

    def _add(self, entry: Entry) -> Key | None:
        kind = entry.kind
        entries = self._kinds.setdefault(kind.number, {})
        entries[entry.key] = entry
        self._sums.kept_bytes += entry.size()
        if kind.copied:
            self._sums.kept_log_bytes += entry.size()
        if kind.most_bytes:
            self._bytes[kind.number] = self._bytes.get(kind.number, 0) + entry.size()
            most_bytes = self._most_bytes.get(kind.number, kind.most_bytes)
            while self._bytes[kind.number] > most_bytes:
                self.forget(kind, next(iter(entries)))
        if not kind.most or len(entries) <= kind.most:
            return None
        oldest = next(iter(entries))
        self.forget(kind, oldest)
        return oldest

    def _settle_in(self, store: Store, entry: Entry) -> None:
        if entry.kind.copied and entry.batch != NEVER:
            store.standing.put(entry.batch, entry, None)
        if entry.expires_unix_ms:
            number = _bucket_of(entry)
            if number not in self._buckets:
                self._buckets[number] = {}
                _arm(store, number)
            self._buckets[number][entry] = None

    def empty_bucket(self, number: int) -> bool:
        """Forget some of what has ended; return whether that was all of a bucket."""
        bucket = self._buckets[number]
        for _ in range(min(STEP_ENTRIES, len(bucket))):
            entry = next(iter(bucket))
            self.forget(entry.kind, entry.key)
        if bucket:
            return False
        del self._buckets[number]
        return True


def _bucket_of(entry: Entry) -> int:
    return -(-entry.expires_unix_ms // BUCKET_MS)


def _arm(store: Store, number: int) -> None:
    left_ms = max(number * BUCKET_MS - store.unix_ms, 0)
    store.set_timer(_bucket_over, number, store.now_ms + left_ms)


def _bucket_over(store: Store, timer: Timer, number: int) -> None:
    if number * BUCKET_MS > store.unix_ms:  # the wall clock was set back meanwhile
        _arm(store, number)
        return
    store.jobs.append(lambda: store.kept.empty_bucket(number))
