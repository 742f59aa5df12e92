"""Retained logs, and the groups that read them (decision 66): what the core knows of each, and what it asks for.

A log is a queue whose only consumer is the archiver (verbs/archiving.py); a group is a queue that the feeder fills
(verbs/feeding.py). The files are the shell's: work on them goes out as effects, and comes back as commands.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from minibroker.contract import limits
from minibroker.contract.limits import GROUP_MARK
from minibroker.contract.settings import LOG, SETTINGS, WORK, Settings
from minibrokerd.core.model.kept import LOG_FILES, LOG_GROUP
from minibrokerd.core.model.refusals import Refused

if TYPE_CHECKING:
    from minibrokerd.core.model.extents import Extent
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.state import Store
    from minibrokerd.core.model.wheel import Timer

OFFSET_BITS: Final = limits.MAX_OFFSET.bit_length()
# Of a log, published and not in its files yet: behind that a publish has to wait.
MOST_BACKLOG_BYTES: Final = 64 * 1024 * 1024
RETRY_MS: Final = 100
# Of a publish, what a log does not keep: it has one order, and nothing in it ever runs.
_NOT_KEPT: Final = ("delay_ms", "ttl_ms", "priority", "after", "after_step")
# Settings that only logs have.
OF_LOGS: Final = frozenset(
    ("retention_ms", "retention_bytes", "retention_messages", "compaction_ms", "tombstone_ms")
)
# Settings that say what a log cannot do: its messages would be gone or wait for something, or nobody takes them.
_ANY: Final = range(1, 2**53 + 1)
_NOT_OF_LOGS: Final[dict[str, Collection[object]]] = {
    "durability": ("memory",),
    "message_ttl_ms": _ANY,
    "delete_unused_ms": _ANY,
    "max_messages": _ANY,
    "max_bytes": _ANY,
    "key_concurrency": _ANY,
    "key_rate": _ANY,
    "rate": _ANY,
    "circuit_failures_percent": _ANY,
    "active_consumers": ("one",),
}
OF_WORK: Final = frozenset(_NOT_OF_LOGS) - {
    "durability"
}  # what a policy says of these is not for logs
_NOT_KEPT_COLUMNS: Final = frozenset({"delay_ms", "unique_key"})


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive messages of a log, as the files have them: `extent` has columns and bodies."""

    first: int
    count: int
    unix_ms: int  # when they were published
    key: str  # of all, if no column says
    encoding: int  # likewise
    columns: list[str]
    extent: Extent


@dataclass(frozen=True, slots=True)
class Extension:
    """What the files of a log have: offsets from `first` to below `stop`, so many messages and bytes."""

    first: int
    stop: int
    messages: int
    size_bytes: int


NOTHING: Final = Extension(0, 0, 0, 0)  # that is known


class Archive:
    """Append these to the files of a log, and sync them; answered by the command `Archived`."""

    __slots__ = ("log", "pieces")

    def __init__(self, log: int, pieces: list[Piece]) -> None:
        self.log = log
        self.pieces = pieces


class Fetch:
    """Read a log from an offset on, or from what was published at `since_unix_ms`; answered by `Fetched`.

    For a group, by the number of its queue, in this generation of it; or for the request of a connection.
    """

    __slots__ = (
        "connection",
        "generation",
        "group",
        "log",
        "most_bytes",
        "offset",
        "request",
        "since_unix_ms",
    )

    def __init__(self, log: int, offset: int, since_unix_ms: int, most_bytes: int) -> None:
        self.log = log
        self.offset = offset
        self.since_unix_ms = since_unix_ms  # 0: from the offset
        self.most_bytes = most_bytes
        self.group = self.generation = 0
        self.connection = self.request = 0


class Forget:
    """Delete what the files of a log have below an offset; None: all of them, for the log has ended.

    When batch `rests_on` is synced, which has the record that says so.
    """

    __slots__ = ("below", "log", "rests_on")

    def __init__(self, log: int, below: int | None, rests_on: int) -> None:
        self.log = log
        self.below = below
        self.rests_on = rests_on


FileWork = Archive | Fetch | Forget


class Reader:
    """A request to read a log that is not answered yet; with a timer it waits for messages at the end."""

    __slots__ = ("asked", "is_asking", "log", "timer")

    def __init__(self, log: RetainedLog, asked: Fetch) -> None:
        self.log = log
        self.asked = asked
        self.timer: Timer | None = None
        self.is_asking = False  # the files are looking for it

    def ask(self, store: Store) -> None:
        """Have the files look."""
        self.is_asking = True
        store.effects.ask(self.asked)


class RetainedLog:
    """A queue of kind `log`. `tokens` are of the deliveries that are on their way into its files.

    `has` is what they have, `stop` where they end at the least, for what stood before that was acknowledged;
    nothing below `floor` is to be read: it was purged.
    """

    __slots__ = ("feeders", "floor", "has", "is_archiving", "queue", "readers", "stop", "tokens")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.tokens: list[int] = []
        self.is_archiving = False
        self.has = NOTHING
        self.floor = self.stop = 0
        self.feeders: dict[int, Feeder] = {}  # by the number of the group's queue
        self.readers: dict[tuple[int, int], Reader] = {}  # by connection and request

    def write(self, store: Store) -> None:
        """Let the log say where the files end, and begin; before the acks of what they have."""
        store.kept.put(store, LOG_FILES, (self.queue.number,), (self.floor, self.stop))

    def purge(self, store: Store) -> int:
        """Have the files forget all that was published so far; return how many messages they have."""
        self.floor = self.queue.next_sequence
        self.write(store)
        self.queue.last_batch = store.open_batch
        store.effects.ask(Forget(self.queue.number, self.floor, store.open_batch))
        return self.has.messages

    def said(self) -> tuple[str, dict[str, Any]]:
        """Return what is told of it beside its counters, and under which name."""
        has = self.has
        return "offsets", {
            "first": has.first,
            "stop": has.stop,
            "next": self.queue.next_sequence,
            "messages": has.messages,
            "bytes": has.size_bytes,
            "groups": len(self.feeders),
        }


class Feeder:
    """The position of a group: the next offset, or the time that it starts from. `queue` is the group's."""

    __slots__ = (
        "behind",
        "behind_at",
        "generation",
        "is_at_end",
        "is_fetching",
        "log",
        "only_key",
        "position",
        "queue",
        "since_unix_ms",
        "upto",
    )

    def __init__(
        self, queue: Queue, log: RetainedLog, position: int, generation: int, since_unix_ms: int
    ) -> None:
        self.queue = queue
        self.log = log
        self.position = position
        self.generation = generation
        self.since_unix_ms = since_unix_ms
        # Below this offset it gets messages of one key alone; the others had ended before it was moved.
        self.upto, self.only_key = 0, ""
        self.is_fetching = False
        # So many messages stood behind the position when it was looked at, and what the next offset was then.
        self.behind: int | None = None
        self.behind_at = 0
        self.is_at_end = False  # there was nothing behind the position when it was looked at

    def write(self, store: Store) -> None:
        """Let the position stand, over a restart, too."""
        place = self.log.queue.number, self.position, self.generation, self.since_unix_ms
        value = (*place, self.upto, self.only_key.encode())
        store.kept.put(store, LOG_GROUP, (self.queue.number,), value)
        self.queue.last_batch = store.open_batch

    def sequence_of(self, offset: int) -> int:
        """Return the sequence that a message of the log has in the group, in this generation."""
        return self.generation << OFFSET_BITS | offset

    def said(self) -> tuple[str, dict[str, Any]]:
        """Return what is told of it beside its counters, and under which name."""
        log = self.log.queue.name
        return "group_of", {"log": log, "position": self.position, "lag": self.lag()}

    def lag(self) -> int:
        """Return about how many messages stand behind the position."""
        log = self.log
        next_offset = log.queue.next_sequence
        if self.behind is None:  # nobody has looked yet: gaps among the offsets do not count
            most = log.has.messages + log.queue.count()
            return min(max(next_offset - max(self.position, log.has.first), 0), most)
        return self.behind + next_offset - self.behind_at


class Retained:
    """All retained logs, by the numbers of their queues.

    `full` are the groups in which a window of messages is, `readers` those that wait, by connection and request.
    `refused` says why there can be no new ones; empty: there can.
    `ended` are queues that a replay saw the end of; what the files have of such a log may be deleted.
    """

    __slots__ = ("ended", "full", "logs", "readers", "refused")

    def __init__(self) -> None:
        self.refused = ""
        self.logs: dict[int, RetainedLog] = {}
        self.ended: set[int] = set()
        self.full: dict[Feeder, None] = {}
        self.readers: dict[int, dict[int, Reader]] = {}

    def look_again(self, store: Store) -> None:
        """A batch is safe: whatever ended in a group, and however, is in one, and there may be room for more."""
        full, self.full = self.full, {}
        for feeder in full:
            store.touch(feeder.queue.group)

    def arrange(self, store: Store, queue: Queue) -> None:
        """Know a queue of kind `log`: it is new, its settings are, or a start found it."""
        if queue.settings["kind"] == LOG and queue.number not in self.logs:
            queue.group.retained = self.logs[queue.number] = RetainedLog(queue)
            store.touch(queue.group)
        if queue.group.retained is not None:
            queue.is_limited = True  # so that publishes are checked

    def opened(self, store: Store) -> None:
        """Take up logs and groups as they stand after a replay."""
        for entry in list(store.kept.of(LOG_FILES)):
            (number,), (floor, stop) = entry.key, entry.value
            known = self.logs.get(int(number))
            if known is None:
                store.kept.forget(LOG_FILES, entry.key)
                continue
            known.floor, known.stop = int(floor), int(stop)
        for entry in list(store.kept.of(LOG_GROUP)):
            (number,), (log_number, position, generation, since_unix_ms, upto, key) = (
                entry.key,
                entry.value,
            )
            queue, log = store.by_number.get(int(number)), self.logs.get(int(log_number))
            if queue is None or log is None:
                store.kept.forget(LOG_GROUP, entry.key)  # it was deleted since
                continue
            feeder = Feeder(queue, log, int(position), int(generation), int(since_unix_ms))
            assert isinstance(key, bytes)
            feeder.upto, feeder.only_key = int(upto), key.decode()
            self.add(store, feeder)

    def add(self, store: Store, feeder: Feeder) -> None:
        """Have a group fed from now on."""
        feeder.log.feeders[feeder.queue.number] = feeder
        feeder.queue.group.retained = feeder
        feeder.queue.is_limited = True
        store.touch(feeder.queue.group)

    def leave(self, store: Store, reader: Reader) -> None:
        """Forget a reader: it is answered, or nobody waits for that any more."""
        if reader.timer is not None:
            store.wheel.cancel(reader.timer)
        asked = reader.asked
        del reader.log.readers[asked.connection, asked.request]
        theirs = self.readers[asked.connection]
        del theirs[asked.request]
        if not theirs:
            del self.readers[asked.connection]

    def disconnected(self, store: Store, connection: int) -> None:
        """Forget the readers of a connection that has ended."""
        for reader in list(self.readers.get(connection, {}).values()):
            self.leave(store, reader)

    def withdrawn(self, store: Store, connection: int, request: int) -> None:
        """Forget a reader, if one waits under this number."""
        reader = self.readers.get(connection, {}).get(request)
        if reader is not None:
            self.leave(store, reader)

    def gone(self, store: Store, queue: Queue) -> None:
        """Know a queue no more that ended: a log, with its files, or a group."""
        there = queue.group.retained
        if isinstance(there, Feeder):
            del there.log.feeders[queue.number]
            self.full.pop(there, None)
            store.kept.end(store, LOG_GROUP, (queue.number,))
        elif there is not None:
            for reader in list(there.readers.values()):
                self.leave(store, reader)
                text = "the log was deleted while it was read"
                header = {"op": "error", "request": reader.asked.request, "code": "unknown_queue"}
                header |= {"text": text, "retryable": False}
                store.send(reader.asked.connection, store.open_batch, header)
            del self.logs[queue.number]
            store.kept.end(store, LOG_FILES, (queue.number,))
            store.effects.ask(Forget(queue.number, None, store.open_batch))


def check_published(queue: Queue, part: Any, columns: Collection[str]) -> None:
    """Check that a client may publish to a queue that is a log, or a group.

    Raises:
        Refused: `bad_value`, what only work queues have is asked for; `busy`, the files are far behind.
    """
    there = queue.group.retained
    if there is None:
        return
    if isinstance(there, Feeder):
        log = there.log.queue.name
        raise Refused("bad_name", f"{queue.name!r} is a group; publish to its log, {log!r}")
    wrong = [name for name in _NOT_KEPT if getattr(part, name, None)]
    wrong += [name for name in columns if name in _NOT_KEPT_COLUMNS]
    if wrong:
        raise Refused(
            "bad_value",
            f"{queue.name!r} is a retained log, which keeps one order and has no {wrong[0]}; "
            "publish without it, or set it at the queue of a group",
        )
    if queue.live_bytes > MOST_BACKLOG_BYTES:
        raise Refused(
            "busy",
            f"the files of the log {queue.name!r} are {queue.live_bytes} bytes behind; retry",
            RETRY_MS,
        )


def check_read(queue: Queue) -> None:
    """Check that a queue may be consumed.

    Raises:
        Refused: `bad_value`, it is a log: its groups are.
    """
    if isinstance(queue.group.retained, RetainedLog):
        raise Refused(
            "bad_value",
            f"{queue.name!r} is a retained log; make a group of it, and consume "
            f"{queue.name + GROUP_MARK + 'GROUP'!r}, or read it without one",
        )


def _was_used(queue: Queue, dlq: Queue | None) -> bool:
    """Whether it gave a message an id, has one from elsewhere, dead or not, or somebody who takes them."""
    group = queue.group
    has_some = queue.count() or group.deliveries or (dlq is not None and dlq.count())
    return bool(queue.next_sequence or group.consumer_count or has_some)


def check_settings_of(
    queue: Queue | None, name: str, settings: Settings, dlq: Queue | None, refused: str
) -> None:
    """Check that a queue may have settings, of which some are for retained logs alone; None: it is to be made.

    `settings` are all that are chosen for it by then: what was before it became a log counts, too.
    `dlq` is that of the queue, if it has one. `refused`: why there can be no new retained log; "": there can.

    Raises:
        Refused: `bad_value`.
    """
    there = queue.group.retained if queue is not None else None
    is_log = isinstance(there, RetainedLog)
    wanted = settings.get("kind", LOG if is_log else WORK)
    if is_log and wanted != LOG:
        raise Refused("bad_value", f"{name!r} is a retained log, and that cannot be changed")
    if wanted == LOG and not is_log:
        if refused:
            raise Refused("bad_value", f"{name!r} cannot be a retained log: {refused}")
        was_used = queue is not None and _was_used(queue, dlq)
        if was_used or GROUP_MARK in name:
            why = "a group of one" if GROUP_MARK in name else "a work queue that was used"
            raise Refused(
                "bad_value",
                f"{name!r} is {why}, and cannot become a retained log; use another name",
            )
    for setting, value in settings.items():
        if wanted == LOG and setting in _NOT_OF_LOGS and value in _NOT_OF_LOGS[setting]:
            raise Refused("bad_value", f"a retained log cannot have {setting}={value}")
        if wanted != LOG and setting in OF_LOGS and value != SETTINGS[setting].default:
            raise Refused(
                "bad_value", f"{name!r} has no {setting}: it is no retained log (kind=log)"
            )
    if isinstance(there, Feeder) and settings.get("durability") == "memory":
        text = f"{name!r} is a group: in memory it would skip what a restart takes"
        raise Refused("bad_value", text)
