"""Publishes that are not written yet, grouped so that calls of one turn leave as few frames.

A group is one frame to be: messages for one queue and with the same terms, whose callers wait equally long. It is
filled until it is written; a value that all messages share stands in the header, one that differs in a column.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence, Set
from typing import Any, Final

from minibroker.contract import limits, wire

# Frames of about this many messages keep several under way when 1,000 tasks publish at once.
GROUP_MESSAGES: Final = 500
GROUP_BYTES: Final = 512 * 1024
FRAME_RESERVE: Final = 1_024  # header of a publish: a queue, a key, names of columns
# Lengths of a message, and its delay, encoding and length of key in columns.
MESSAGE_RESERVE: Final = 25
NAMES_RESERVE: Final = 8  # lengths of a unique key and of a dedupe id
NOTHING_PLAIN: Final = -1
GROUP_OPEN_MS: Final = 100  # while nothing can be written: later callers have a later deadline

# Queue, time-out in ms, and the terms of the messages if they have some: those of `TERMS`, 0 or "" for none.
# Those to exchanges: see route_groups.py.
Key = tuple[str, int, *tuple[Any, ...]]
TERMS: Final = ("max_attempts", "lease_ms", "priority", "unique_mode", "dedupe_window_ms", "ttl_ms")
Waiter = Any  # a future of the shell, opaque here but for `cancelled()`; or (future, count)


_NAMELESS: Final = b"", b""
_OF_MESSAGES: Final = (
    "blob", "size", "cost", "waiters", "varies", "encodings", "keys", "delays", "names",
)  # fmt: skip


def _future_of(entry: Waiter) -> Any:
    return entry[0] if type(entry) is tuple else entry


class PublishGroup:
    """Messages that will leave in one frame; the lists have one entry a message, `blob` two if it is not `plain`.

    `waiters` has one entry a call: a waiter for one message, or (waiter, count).
    """

    __slots__ = (
        "alone",
        "behind",
        "blob",
        "cost",
        "deadline_ms",
        "delay_ms",
        "delays",
        "encoding",
        "encodings",
        "key",
        "keys",
        "names",
        "opened_ms",
        "order",
        "plain",
        "plain_bytes",
        "refusal",
        "refusals",
        "sequence",
        "size",
        "slot",
        "varies",
        "waiters",
        "where",
    )

    def __init__(self, where: Key, now_ms: int, plain_bytes: int = NOTHING_PLAIN) -> None:
        self.where = where
        self.opened_ms = now_ms
        self.deadline_ms = now_ms + where[1]
        self.slot = 0  # in the table of deadlines
        self.sequence = 0  # of the frame that it was last written in; 0: it never was
        self.order = 0  # of the frame that its messages were written in first
        self.refusal: Exception | None = None  # why it waits to be written again
        self.refusals = 0
        # Written after it, with a key of its own, not answered.
        self.behind: set[PublishGroup] = set()
        # Plain messages (bytes, nothing else said) of at most `plain_bytes` are only appended to `blob` and
        # `waiters` by `Queue.publish`, without headers. When it is closed, or has others (use `add`), that is
        # below every length: one comparison tells all of it.
        self.plain_bytes = plain_bytes
        self.plain = self.alone = True
        self.size = 0
        self.cost = 0  # bytes of the frame that it makes, at most, beside FRAME_RESERVE; not kept while `plain`
        self.blob: list[bytes] = []  # headers and body of each message; bodies alone if `plain`
        self.waiters: list[Waiter] = []  # all for one message if `alone`
        self.encoding = 0
        self.key = b""
        self.delay_ms = 0
        self.varies = False
        self.encodings: list[int] = []
        self.keys: list[bytes] = []
        self.delays: list[int] = []
        # Unique key and dedupe id of the messages that have one, by index.
        self.names: dict[int, tuple[bytes, bytes]] = {}

    def add(
        self, waiter: Waiter, headers: bytes, body: bytes, encoding: int, key: bytes, delay_ms: int
    ) -> None:
        """Add one message."""
        if self.plain:
            if len(body) <= self.plain_bytes and not (headers or key or delay_ms or encoding):
                self.blob.append(body)
                self.waiters.append(waiter)
                return
            self._end_plain()
        if self.varies or encoding != self.encoding or key != self.key or delay_ms != self.delay_ms:
            self._note(1, encoding, key, delay_ms)
        self.blob.append(headers)
        self.blob.append(body)
        self.size += len(headers) + len(body)
        self.cost += len(headers) + len(body) + len(key) + MESSAGE_RESERVE
        self.waiters.append(waiter)

    def add_many(
        self,
        waiter: Waiter,
        headers: bytes,
        bodies: Sequence[bytes],
        encodings: Sequence[int],
        key: bytes,
        delay_ms: int,
    ) -> None:
        """Add the messages of one call; all of them share headers, key and delay."""
        count = len(bodies)
        if self.plain:
            if not (headers or key or delay_ms or any(encodings)):
                # `Queue.publish`, which counts calls, appends no more to it.
                self.alone, self.plain_bytes = False, NOTHING_PLAIN
                self.blob += bodies
                self.waiters.append((waiter, count))
                return
            self._end_plain()
        first = encodings[0]
        if encodings.count(first) != count:
            if not self.blob:
                self.key, self.delay_ms = key, delay_ms
            self._vary()
            self.encodings += encodings
            self.keys += [key] * count
            self.delays += [delay_ms] * count
        elif self.varies or first != self.encoding or key != self.key or delay_ms != self.delay_ms:
            self._note(count, first, key, delay_ms)
        self.alone = False
        pieces = [headers] * (2 * count)
        pieces[1::2] = bodies
        self.blob += pieces
        size = sum(map(len, pieces))
        self.size += size
        self.cost += size + count * (len(key) + MESSAGE_RESERVE)
        self.waiters.append((waiter, count))

    def name_last(self, names: Sequence[tuple[bytes, bytes]]) -> None:
        """Give the messages that were added last a unique key and a dedupe id each; empty: none."""
        if names and self.plain:
            self._end_plain()
        first = self.count - len(names)
        for index, (unique, dedupe) in enumerate(names, first):
            if unique or dedupe:
                self.names[index] = unique, dedupe
                self.cost += len(unique) + len(dedupe) + NAMES_RESERVE

    def account(self) -> int:
        """Return the bytes of the blob."""
        return sum(map(len, self.blob)) if self.plain else self.size

    def takes(self, count: int, cost: int, most_bytes: int) -> bool:
        """Return whether `count` messages of together `cost` bytes may be added to it."""
        if count == 1 and cost <= self.plain_bytes + MESSAGE_RESERVE:
            return len(self.blob) < GROUP_MESSAGES  # as many of these as there may be have room
        own = self.account() + MESSAGE_RESERVE * len(self.blob) if self.plain else self.cost
        return self.count + count <= GROUP_MESSAGES and own + cost <= most_bytes

    def _end_plain(self) -> None:
        """Give what was only appended its (empty) headers, as all others have them."""
        self.size = self.account()
        self.cost = self.size + MESSAGE_RESERVE * len(self.blob)
        self.plain = False
        self.plain_bytes = NOTHING_PLAIN
        bodies, self.blob = self.blob, [b""] * (2 * len(self.blob))
        self.blob[1::2] = bodies

    def _note(self, count: int, encoding: int, key: bytes, delay_ms: int) -> None:
        """Note the values of the next `count` messages; the first ones set what the group shares."""
        if not self.blob:
            self.encoding, self.key, self.delay_ms = encoding, key, delay_ms
            return
        self._vary()
        self.encodings += [encoding] * count
        self.keys += [key] * count
        self.delays += [delay_ms] * count

    def _vary(self) -> None:
        """Keep values for each message from now on."""
        if not self.varies:
            self.varies = True
            self.encodings = [self.encoding] * self.count
            self.keys = [self.key] * self.count
            self.delays = [self.delay_ms] * self.count

    @property
    def count(self) -> int:
        """The number of messages."""
        return len(self.blob) if self.plain else len(self.blob) // 2

    def drop_withdrawn(self) -> None:
        """Take out the messages whose callers were cancelled; only legal before the frame is made."""
        if self.alone and self.waiters:  # runs per message
            withdrawn = any(map(type(self.waiters[0]).cancelled, self.waiters))
        else:
            withdrawn = any(_future_of(waiter).cancelled() for waiter in self.waiters)
        if withdrawn:
            self._keep(lambda waiter, key: not waiter.cancelled())

    def drop_keyed(self, keys: Set[bytes]) -> list[Waiter]:
        """Take out the calls for messages of these keys, and return who waits for them; as `drop_withdrawn`."""
        return self._keep(lambda waiter, key: key not in keys)

    def _keep(self, is_kept: Callable[[Any, bytes], bool]) -> list[Waiter]:
        """Keep some of the calls, told by who waits and by the key of the messages; return the other ones."""
        if self.plain:
            self._end_plain()
        kept, dropped = PublishGroup(self.where, self.opened_ms), []
        at = 0
        for entry in self.waiters:
            waiter, count = entry if type(entry) is tuple else (entry, 1)
            if is_kept(waiter, self._values(at)[1]):
                for index in range(at, at + count):
                    headers, body = self.blob[2 * index : 2 * index + 2]
                    kept.add(None, headers, body, *self._values(index))
                    if index in self.names:
                        kept.name_last([self.names[index]])
                del kept.waiters[-count:]
                kept.waiters.append(entry)
            else:
                dropped.append(entry)
            at += count
        for name in _OF_MESSAGES:
            setattr(self, name, getattr(kept, name))
        self.plain = kept.plain
        self.encoding, self.key, self.delay_ms = kept.encoding, kept.key, kept.delay_ms
        return dropped

    def let_go(self) -> None:
        """Forget callers and bodies: it has its answer."""
        self.waiters = []
        self.blob = []

    def named_keys(self) -> set[bytes]:
        """Return the keys of its messages."""
        return (set(self.keys) if self.varies else {self.key}) - {b""}

    def halves(self) -> list[PublishGroup]:
        """Return the calls of this group in two groups; an empty list if there is only one."""
        middle = len(self.waiters) // 2
        if not middle:
            return []
        at = sum(entry[1] if type(entry) is tuple else 1 for entry in self.waiters[:middle])
        return [
            self._part(slice(0, middle), 0, at),
            self._part(slice(middle, None), at, self.count),
        ]

    def _part(self, calls: slice, first: int, stop: int) -> PublishGroup:
        part = type(self)(self.where, self.opened_ms)
        for name in ("deadline_ms", "plain", "alone", "varies", "encoding", "key", "delay_ms"):
            setattr(part, name, getattr(self, name))
        for name in ("sequence", "order", "refusal", "refusals"):
            setattr(part, name, getattr(self, name))
        part.behind = set(self.behind)
        part.waiters = self.waiters[calls]
        if self.plain:
            part.blob = self.blob[first:stop]
            return part
        part.blob = self.blob[2 * first : 2 * stop]
        part.size = sum(map(len, part.blob))
        if self.varies:
            part.encodings = self.encodings[first:stop]
            part.keys, part.delays = self.keys[first:stop], self.delays[first:stop]
            # What all of a part share need not be what the whole group began with.
            part.encoding, part.key, part.delay_ms = part._values(0)
        part.cost = part.size + (stop - first) * (MESSAGE_RESERVE + len(part.key))
        part.cost += sum(map(len, part.keys))
        for index in range(first, stop) if self.names else ():
            if index in self.names:
                part.names[index - first] = self.names[index]
                part.cost += sum(map(len, self.names[index])) + NAMES_RESERVE
        return part

    def _values(self, index: int) -> tuple[int, bytes, int]:
        if self.varies:
            return self.encodings[index], self.keys[index], self.delays[index]
        return self.encoding, self.key, self.delay_ms

    def part(self) -> tuple[dict[str, object], bytes, bytes]:
        """Return its part of a frame: what stands in the header, its columns, its lengths."""
        where = self.where
        part: dict[str, object] = {"op": "publish", "queue": where[0], "count": self.count}
        if len(where) > 2:
            # A server of an earlier release knows the first ones only: what is not asked for is left out.
            part |= {name: value for name, value in zip(TERMS, where[2:], strict=True) if value}
        return part, b"" if self.plain else self._columns(part), self._lengths()

    def pack(self, sequence: int, answered_below: int) -> bytes:
        """Return the frame that has nothing else."""
        part, columns, lengths = self.part()
        header = {"parts": [part], "sequence": sequence, "answered_below": answered_below}
        return b"".join(wire.frame_pieces(header, columns, lengths, self.blob, self.account()))

    def _lengths(self) -> bytes:
        """Return the lengths column: of headers and body of each message."""
        sizes = list(map(len, self.blob))
        if not self.plain:
            return struct.pack(f"<{len(sizes)}I", *sizes)
        first, count = sizes[0], len(sizes)
        if sizes.count(first) == count:
            return struct.pack("<II", 0, first) * count
        return struct.pack("<" + "4xI" * count, *sizes)

    def _columns(self, part: dict[str, object]) -> bytes:
        """Put what all messages share into `part`, name the columns there, and return them."""
        names, columns = [], []
        if self.varies and len(set(self.delays)) > 1:
            names.append("delay_ms")
            columns.append(struct.pack(f"<{self.count}Q", *self.delays))
        elif self.delay_ms:
            part["delay_ms"] = self.delay_ms
        if self.varies and len(set(self.keys)) > 1:
            names.append("key")
            columns.append(wire.pack_strings(self.keys))
        elif self.key:
            part["key"] = self.key.decode()
        if self.varies and len(set(self.encodings)) > 1:
            names.append("encoding")
            columns.append(bytes(self.encodings))
        elif self.encoding:
            part["encoding"] = self.encoding
        for at, name in enumerate(("unique_key", "dedupe_id")) if self.names else ():
            texts = [self.names.get(index, _NAMELESS)[at] for index in range(self.count)]
            if any(texts):
                names.append(name)
                columns.append(wire.pack_strings(texts))
        if names:
            part["columns"] = names
        return b"".join(columns)


class Hold:
    """A queue of which a publish was refused for now: its groups leave one by one until none is left of those."""

    __slots__ = ("out", "refused", "until_ms")

    def __init__(self) -> None:
        self.until_ms = 0
        self.refused = 0  # groups that were refused, and wait or are written again
        self.out: PublishGroup | None = None  # the one that is written and has no answer


class Outbox:
    """The groups of a session, oldest first; of each queue at most one is open, the newest: so its order holds.

    What was refused for now goes back to its place, and nothing of its queue overtakes it.
    """

    __slots__ = ("_newest", "group_bytes", "groups", "holds", "open", "plain_bytes")

    def __init__(self) -> None:
        self.groups: deque[PublishGroup] = deque()
        self.open: dict[Key, PublishGroup] = {}
        self._newest: dict[str, Key] = {}  # of the open ones, by queue
        self.holds: dict[str, Hold] = {}
        self.fit(limits.MAX_FRAME_BYTES)

    def fit(self, max_frame_bytes: int) -> None:
        """Fill groups as far as a frame of the server's size allows, from the next ones on."""
        for key in list(self.open):
            self.close(key)
        self.group_bytes = min(GROUP_BYTES, max_frame_bytes - FRAME_RESERVE)
        # As many of these as a group may have fit into it.
        self.plain_bytes = self.group_bytes // GROUP_MESSAGES - MESSAGE_RESERVE

    def start(self, key: Key, now_ms: int, make: type[PublishGroup] = PublishGroup) -> PublishGroup:
        """Open a new group for `key`; one of its queue that was open is closed."""
        open = self._newest.get(key[0])
        if open is not None:
            self.close(open)
        self._newest[key[0]] = key
        group = make(key, now_ms, self.plain_bytes)
        self.groups.append(group)
        self.open[key] = group
        return group

    def close(self, key: Key) -> None:
        """Let the next message for `key` start another group."""
        group = self.open.pop(key, None)
        if group is not None:
            group.plain_bytes = NOTHING_PLAIN
            del self._newest[key[0]]

    def close_older(self, now_ms: int) -> None:
        """Close the groups opened a while ago; called when nothing can be written."""
        for key, group in list(self.open.items()):
            if now_ms - group.opened_ms > GROUP_OPEN_MS:
                self.close(key)

    def clear(self) -> None:
        """Forget all groups."""
        for key in list(self.open):
            self.close(key)
        self.groups.clear()
        self.holds.clear()

    def next(self, now_ms: int) -> PublishGroup | None:
        """Return the oldest group that may be written now."""
        if not self.holds:
            return self.groups[0] if self.groups else None
        blocked: set[str] = set()
        for group in self.groups:
            queue = group.where[0]
            hold = self.holds.get(queue)
            if hold is None:
                return group
            if queue in blocked or hold.out or hold.until_ms > now_ms or group.behind:
                blocked.add(queue)
            else:
                return group
        return None

    def take(self, group: PublishGroup) -> None:
        """Take out a group that is to be written; nothing can be added to it any more."""
        if self.groups[0] is group:
            self.groups.popleft()
        else:
            self.groups.remove(group)
        if self.open.get(group.where) is group:
            self.close(group.where)
        if self.holds and group.where[0] in self.holds:
            self.holds[group.where[0]].out = group

    def pop(self) -> PublishGroup:
        """Take out the oldest group, whatever holds it."""
        group = self.groups[0]
        self.take(group)
        return group

    def remove(self, group: PublishGroup) -> bool:
        """Take `group` out and return whether it was still here."""
        if group not in self.groups:
            return False
        self.groups.remove(group)
        if self.open.get(group.where) is group:
            self.close(group.where)
        return True

    # ---- what was refused ----

    def put_back(self, groups: Sequence[PublishGroup], until_ms: int) -> None:
        """Let groups that were refused wait at their place, and their queue until `until_ms`."""
        queue, order = groups[0].where[0], groups[0].order
        hold = self.holds.setdefault(queue, Hold())
        hold.until_ms = max(hold.until_ms, until_ms)
        at = len(self.groups)
        for index, other in enumerate(self.groups):
            if other.where[0] == queue and not 0 < other.order < order:
                at = index
                break
        for group in reversed(groups):
            group.refusals += 1
            hold.refused += 1
            self.groups.insert(at, group)

    def answered(self, group: PublishGroup) -> None:
        """Note that a group has its answer, whatever it is, or will get none: the next of its queue may leave."""
        hold = self.holds.get(group.where[0])
        if hold is None:
            return
        if hold.out is group:
            hold.out = None
        if group.refusals:
            hold.refused -= 1
        if not hold.refused and hold.out is None:
            del self.holds[group.where[0]]

    def overtaken_by(self, group: PublishGroup, *, stored: bool) -> list[PublishGroup]:
        """A group has its answer: return those that wait and that it overtook, if it was stored."""
        waiting = [other for other in self.groups if group in other.behind] if self.holds else []
        for other in waiting:
            other.behind.discard(group)
        return waiting if stored else []
