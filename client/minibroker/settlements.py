"""What the messages of a queue owe the server: begins and settlements that are not written yet.

A settlement is appended to a list when it is made and becomes part of a run (token, origin, first
sequence, count) when it is written, so settling costs one append a message. Messages that began and were
settled in the same turn of the loop need only the settlement.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from minibroker import limits, wire

if TYPE_CHECKING:
    from minibroker.message import Message

HELD: Final = 0  # in the buffer; the application has not seen it
BEGUN: Final = 1  # the application has it; the server was not told
TOLD: Final = 2  # begun, and the begin was written
ENDED: Final = 3  # settled, lost, or given back unseen

Run = tuple[int, int, int, int]  # token, origin, first sequence, count
Waiter = Any  # a future of the shell, opaque here

MAX_PARTS: Final = (
    limits.MAX_PARTS_PER_FRAME // 4
)  # headers of four times 16 long queue names stay below 16 KiB
MAX_ACKS: Final = 5_000  # in one part, so that two queues may share a frame
MAX_ERRORS: Final = 100  # errors in one frame; their texts may be long
FRAME_BYTES: Final = 512 * 1024  # more than any settle frame: 10,000 runs, 100 error texts


class SettlePart:
    """One part of a frame to be, and the messages it speaks of."""

    __slots__ = ("errors", "messages", "op", "queue", "runs", "value", "waiters")

    def __init__(
        self, op: str, queue: str, messages: Sequence[Message[Any]], value: int | None
    ) -> None:
        self.op = op
        self.queue = queue
        self.messages = messages
        self.value = value  # delay_ms of a nack, lease_ms of an extend
        self.runs: list[Run] = []
        self.errors: list[tuple[bytes, bytes]] = []  # class and text, one for each run
        self.waiters: list[tuple[Message[Any], Waiter]] = []

    def header(self) -> dict[str, object]:
        """Return the map that stands in the header of the frame."""
        part: dict[str, object] = {"op": self.op, "queue": self.queue, "runs": len(self.runs)}
        if self.value is not None:
            part["delay_ms" if self.op == "nack" else "lease_ms"] = self.value
        return part

    def columns(self) -> bytes:
        """Return the columns of this part."""
        packed = wire.pack_runs(self.runs)
        if self.op in ("nack", "reject"):
            packed += wire.pack_strings([error_class for error_class, _ in self.errors])
            packed += wire.pack_strings([text for _, text in self.errors])
        return packed


class Settlement:
    """One settlement other than a plain ack."""

    __slots__ = ("error_class", "error_text", "message", "op", "value")

    def __init__(
        self,
        op: str,
        message: Message[Any],
        value: int | None = None,
        error_class: bytes = b"",
        error_text: bytes = b"",
    ) -> None:
        self.op = op
        self.message = message
        self.value = value
        self.error_class = error_class
        self.error_text = error_text


class Settlements:
    """The begins and settlements of one queue that wait to be written.

    `flush_at` is how many waiting acks are worth a call of `on_ripe`, which writes them or sees to it that
    they will be, and returns something to await when there is no room.
    """

    __slots__ = ("acks", "begins", "flush_at", "half", "on_ripe", "others", "queue", "waiters")

    def __init__(
        self, queue: str, on_ripe: Callable[[Settlements], Awaitable[None] | None]
    ) -> None:
        self.queue = queue
        self.begins: list[Message[Any]] = []
        self.acks: list[Message[Any]] = []
        self.others: list[Settlement] = []
        self.waiters: list[tuple[Message[Any], Waiter]] = []
        self.half = 1  # half of the smallest prefetch: acks that are written early
        self.flush_at = 1
        self.on_ripe = on_ripe

    def is_empty(self) -> bool:
        """Return whether nothing is waiting, begins apart."""
        return not self.acks and not self.others

    def let_go(self) -> None:
        """Forget what waits: nobody will be told of it any more."""
        for waiting in (self.begins, self.acks, self.others, self.waiters):
            waiting.clear()

    def take_begins(self) -> list[SettlePart]:
        """Return the begins of messages that are still begun, and note that the server is told."""
        messages = [message for message in self.begins if message.state == BEGUN]
        self.begins.clear()
        if not messages:
            return []
        for message in messages:
            message.state = TOLD
        part = SettlePart("begin", self.queue, messages, None)
        part.runs = runs_of(messages)
        return [part]

    def take(self) -> list[SettlePart]:
        """Return the waiting settlements as parts, at most one frame full."""
        acks, self.acks = self.acks[:MAX_ACKS], self.acks[MAX_ACKS:]
        parts = []
        if acks:
            part = SettlePart("ack", self.queue, acks, None)
            part.runs = runs_of(acks)
            parts.append(part)
        if self.others:
            parts += self._take_others(MAX_PARTS - 2)
        if self.waiters:
            self._give_waiters(parts)
        return parts

    def _take_others(self, most: int) -> list[SettlePart]:
        groups: dict[tuple[str, int | None], SettlePart] = {}
        kept = self.others[MAX_ERRORS:]
        for other in self.others[:MAX_ERRORS]:
            group = (other.op, other.value)
            part = groups.get(group)
            if part is None:
                if len(groups) == most:
                    kept.append(other)
                    continue
                part = groups[group] = SettlePart(other.op, self.queue, [], other.value)
            message = other.message
            part.messages.append(message)  # type: ignore[attr-defined]
            part.runs.append((message.token, message.origin, message.sequence, 1))
            part.errors.append((other.error_class, other.error_text))
        self.others = kept
        return list(groups.values())

    def _give_waiters(self, parts: Iterable[SettlePart]) -> None:
        """Hang each waiter on the part that speaks of its message."""
        for part in parts:
            members = set(map(id, part.messages))
            part.waiters = [entry for entry in self.waiters if id(entry[0]) in members]
            self.waiters = [entry for entry in self.waiters if id(entry[0]) not in members]


def runs_of(messages: Iterable[Message[Any]]) -> list[Run]:
    """Return the runs that name `messages`, consecutive ones merged.

    Runs per message, so it is written out: settlements mostly come in the order of delivery.
    """
    runs: list[Run] = []
    last = None
    first = following = -1
    for message in messages:
        sequence = message.sequence
        if sequence == following and message.run is last:
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


def named_by(runs: Sequence[Run], messages: Iterable[Message[Any]]) -> list[Message[Any]]:
    """Return those of `messages` that `runs` name."""
    return [
        message
        for message in messages
        if any(
            token == message.token
            and origin == message.origin
            and first <= message.sequence < first + count
            for token, origin, first, count in runs
        )
    ]
