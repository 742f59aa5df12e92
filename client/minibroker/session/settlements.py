"""What the messages of a queue owe the server: begins and settlements that are not written yet.

A settlement is appended to a list when it is made and becomes part of a run (token, origin, first
sequence, count) when it is written, so settling costs one append a message. Messages that began and were
settled in the same turn of the loop need only the settlement.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from minibroker.contract import wire
from minibroker.session.frame_room import FrameRoom

HELD: Final = 0  # in the buffer; the application has not seen it
BEGUN: Final = 1  # the application has it; the server was not told
TOLD: Final = 2  # begun, and the begin was written
ENDED: Final = 3  # settled, lost, or given back unseen

GOES_ON: Final = frozenset({"begin", "extend", "progress"})  # parts that end no message
# What the value of a part is called, where it has one.
_VALUES: Final = {
    "nack": "delay_ms",
    "extend": "lease_ms",
    "release": "recalled",
    "complete": "kept_ms",
    "progress": "permille",
}

Item = Any  # a MessageData: message.py builds on this module
Run = tuple[int, int, int, int]  # token, origin, first sequence, count
Waiter = Any  # a future of the shell, opaque here
Ripe = Callable[["Settlements"], Any]  # what it returns is the shell's way to wait for room


class SettlePart:
    """One part of a frame to be, and the messages it speaks of."""

    __slots__ = ("errors", "key_delay_ms", "messages", "op", "queue", "runs", "value", "waiters")

    def __init__(self, op: str, queue: str, messages: Sequence[Item], value: int | None) -> None:
        self.op = op
        self.queue = queue
        self.messages = messages
        self.value = value  # as `_VALUES` says
        self.key_delay_ms = 0  # of a nack: nothing of its key comes for so long
        self.runs: list[Run] = []
        self.errors: list[
            tuple[bytes, bytes]
        ] = []  # class and text, or what else is said, one for each run
        self.waiters: list[tuple[Item, Waiter]] = []

    def header(self) -> dict[str, object]:
        """Return the map that stands in the header of the frame."""
        part: dict[str, object] = {"op": self.op, "queue": self.queue, "runs": len(self.runs)}
        if self.value is not None:
            part[_VALUES[self.op]] = self.value
        if self.key_delay_ms:
            part["key_delay_ms"] = self.key_delay_ms
        return part

    def columns(self) -> bytes:
        """Return the columns of this part."""
        packed = wire.pack_runs(self.runs)
        if self.op in ("nack", "reject"):
            packed += wire.pack_strings([error_class for error_class, _ in self.errors])
            packed += wire.pack_strings([text for _, text in self.errors])
        elif self.op in ("complete", "progress"):
            packed += wire.pack_strings([said for _, said in self.errors])
        return packed


class Settlement:
    """One settlement other than a plain ack; `error_text` is a result, or a note, where those are said."""

    __slots__ = ("error_class", "error_text", "key_delay_ms", "message", "op", "value")

    def __init__(
        self,
        op: str,
        message: Item,
        value: int | None = None,
        error_class: bytes = b"",
        error_text: bytes = b"",
        key_delay_ms: int = 0,
    ) -> None:
        self.key_delay_ms = key_delay_ms
        self.op = op
        self.message = message
        self.value = value
        self.error_class = error_class
        self.error_text = error_text


class Settlements:
    """The begins and settlements of one queue that wait to be written.

    `flush_at` is how many waiting acks are worth a call of `on_ripe`, which writes them or sees to it that
    they will be, and returns something to await when there is no room. A session keeps it only while something
    waits (it stands in `owing` then), a consumer or a delivery of its queue lives.
    """

    __slots__ = (
        "__weakref__",
        "_owing",
        "_ripe",
        "acks",
        "begins",
        "extend_waiters",
        "flush_at",
        "half",
        "others",
        "queue",
        "waiters",
    )

    def __init__(self, queue: str, owing: dict[Settlements, None], ripe: Ripe) -> None:
        self.queue = queue
        self.begins: list[Item] = []
        self.acks: list[Item] = []
        self.others: list[Settlement] = []
        # Apart, for a message may be extended and ended in one turn, and each is confirmed by its own part.
        self.waiters: list[tuple[Item, Waiter]] = []
        self.extend_waiters: list[tuple[Item, Waiter]] = []
        self.half = 1  # half of the smallest prefetch: acks that are written early
        self.flush_at = 1
        self._owing = owing
        self._ripe = ripe

    def owe(self) -> None:
        """Note that something waits: the next flush, which the caller sees to, looks here."""
        self._owing[self] = None
        self.flush_at = self.half

    def on_ripe(self) -> Any:
        """Note that settlements wait, and have them written; return something to await if there is no room."""
        self.owe()
        return self._ripe(self)

    def is_empty(self) -> bool:
        """Return whether nothing is waiting, begins apart."""
        return not self.acks and not self.others

    def let_go(self) -> None:
        """Forget what waits: nobody will be told of it any more."""
        for waiting in (self.begins, self.acks, self.others, self.waiters, self.extend_waiters):
            waiting.clear()

    def take_begins(self, room: FrameRoom) -> list[SettlePart]:
        """Return the begins of messages that are still begun as a part, if there is room; the server is told."""
        messages = [message for message in self.begins if message.state == BEGUN]
        most = room.for_part(self.queue) if messages else 0
        self.begins = messages[most:]
        if not most:
            return []
        del messages[most:]
        for message in messages:
            message.state = TOLD
        part = SettlePart("begin", self.queue, messages, None)
        part.runs = runs_of(messages)
        room.add_part(self.queue)
        room.add_messages(len(messages))
        return [part]

    def take(self, room: FrameRoom) -> list[SettlePart]:
        """Return waiting settlements as parts, as many as there is room for."""
        # The others first: a message may be extended, then acked. While some of them wait, so do the acks.
        parts = self._take_others(room) if self.others else []
        most = room.for_part(self.queue) if self.acks and not self.others else 0
        if most:
            acks, self.acks = self.acks[:most], self.acks[most:]
            part = SettlePart("ack", self.queue, acks, None)
            part.runs = runs_of(acks)
            room.add_part(self.queue)
            room.add_messages(len(acks))
            parts.append(part)
        if self.waiters:
            self.waiters = _give_waiters(self.waiters, [p for p in parts if p.op != "extend"])
        if self.extend_waiters:
            extends = [part for part in parts if part.op == "extend"]
            self.extend_waiters = _give_waiters(self.extend_waiters, extends)
        return parts

    def _take_others(self, room: FrameRoom) -> list[SettlePart]:
        groups: dict[tuple[str, int | None, int], SettlePart] = {}
        taken = 0
        for other in self.others:
            alike = other.op, other.value, other.key_delay_ms
            part = groups.get(alike)
            alone = part is None and room.is_whole()
            if not alone and not room.takes_error(self.queue if part is None else None, other):
                break  # what stands behind it waits, too: a message may be extended, then ended
            if part is None:
                part = groups[alike] = SettlePart(other.op, self.queue, [], other.value)
                part.key_delay_ms = other.key_delay_ms
                room.add_part(self.queue)
            room.add_error(other)
            message = other.message
            part.messages.append(message)  # type: ignore[attr-defined]
            part.runs.append((message.token, message.origin, message.sequence, 1))
            part.errors.append((other.error_class, other.error_text))
            taken += 1
        del self.others[:taken]
        return list(groups.values())


def _give_waiters(
    waiters: list[tuple[Item, Waiter]], parts: Iterable[SettlePart]
) -> list[tuple[Item, Waiter]]:
    """Hang each waiter on the part that speaks of its message; return those that no part speaks of."""
    for part in parts:
        members = set(map(id, part.messages))
        part.waiters = [entry for entry in waiters if id(entry[0]) in members]
        waiters = [entry for entry in waiters if id(entry[0]) not in members]
    return waiters


def runs_of(messages: Sequence[Item]) -> list[Run]:
    """Return the runs that name `messages`, consecutive ones merged.

    Done for each message, so it is written out: calls in C that look at an attribute of all of them have fewer
    steps, and take more than twice as long.
    """
    runs: list[Run] = []
    last: Any = None
    first = following = -1
    for message in messages:
        sequence = message.sequence
        # Where keys take turns each message has a run of its own, of the same delivery.
        if sequence == following and (
            message.run is last
            or (message.run.delivery is last.delivery and message.run.origin == last.origin)
        ):
            following += 1
            continue
        if last is not None:
            runs.append((last.delivery.token, last.origin, first, following - first))
        last = message.run
        first, following = sequence, sequence + 1
    if last is not None:
        runs.append((last.delivery.token, last.origin, first, following - first))
    return _merged(runs) if len(runs) > 1 else runs


def _merged(runs: list[Run]) -> list[Run]:
    """Return `runs` in order, those that touch as one: handlers end in any order."""
    runs.sort()
    merged = [runs[0]]
    for token, origin, first, count in runs[1:]:
        last_token, last_origin, last_first, last_count = merged[-1]
        if (token, origin, first) == (last_token, last_origin, last_first + last_count):
            merged[-1] = (token, origin, last_first, last_count + count)
        else:
            merged.append((token, origin, first, count))
    return merged


def named_by(runs: Sequence[Run], messages: Iterable[Item]) -> list[Item]:
    """Return those of `messages` that `runs` name; thousands of both cost a search each, not a walk."""
    stops: dict[tuple[int, int], dict[int, int]] = {}
    for token, origin, first, count in runs:
        members = stops.setdefault((token, origin), {})
        members[first] = max(first + count, members.get(first, 0))
    firsts = {place: sorted(members) for place, members in stops.items()}
    named = []
    for message in messages:
        place = message.token, message.origin
        starts = firsts.get(place)
        if starts is None:
            continue
        at = bisect_right(starts, message.sequence)
        if at and message.sequence < stops[place][starts[at - 1]]:
            named.append(message)
    return named
