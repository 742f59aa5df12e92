"""What one client did and was told, operation by operation; and what a broker must still know of it later.

Believed is only what was confirmed. What was asked and never answered may have happened, or not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgpack

from support.raw_client import RawClient

QUEUE, DLQ, GONE = "jobs", "jobs.dlq", "gone"
BODY_BYTES = 8_000  # eight of them fill a segment of 64 KiB


@dataclass(slots=True)
class Entry:
    """One message: whether it is stored, the last verb that it was settled with, whether that was confirmed."""

    queue: str
    stored: bool = False
    verb: str = ""
    settled: bool = False

    def must_be_there(self) -> bool:
        """Whether it would be lost if it were not there."""
        return self.stored and self.verb not in ("ack", "delete")

    def must_be_gone(self) -> bool:
        """Whether a confirmed end would be undone if it were there."""
        return self.settled and self.verb in ("ack", "delete")

    def may_be_in(self, queue: str) -> bool:
        """Whether it may be in this queue: rejected ones in the DLQ, all others at home."""
        if self.verb == "reject":
            return queue == DLQ or (queue == QUEUE and not self.settled)
        return queue == self.queue


@dataclass(slots=True)
class Ledger:
    """The messages by number, and for each confirm when (wall time) it was asked for and came."""

    entries: dict[int, Entry] = field(default_factory=dict)
    confirms: list[tuple[float, float]] = field(default_factory=list)

    @property
    def confirmed(self) -> int:
        """How many messages are stored for certain."""
        return sum(entry.stored for entry in self.entries.values())

    def new(self, queue: str) -> int:
        """Enter a message that is about to be published."""
        number = len(self.entries)
        self.entries[number] = Entry(queue)
        return number

    def copy(self) -> Ledger:
        """Return a ledger that goes on from here."""
        entries = {
            number: Entry(entry.queue, entry.stored, entry.verb, entry.settled)
            for number, entry in self.entries.items()
        }
        return Ledger(entries)

    def compare(self, client: RawClient) -> list[str]:
        """Return what a broker holds against this ledger: an empty list if all is right."""
        faults: list[str] = []
        seen: dict[int, str] = {}
        stats = client.ask("stats")["value"]["queues"]
        for queue in stats:
            shown = list(peek(client, queue))
            states = sum(stats[queue][state] for state in ("ready", "delayed", "held", "begun"))
            if states != len(shown):
                faults.append(f"{queue} counts {states} messages and shows {len(shown)}: {stats}")
            for number, attempts in shown:
                faults += self._compare_one(number, queue, attempts)
                if number in seen:
                    faults.append(f"message {number} is there twice: {seen[number]} and {queue}")
                seen[number] = queue
            purged = client.ask("purge", queue=queue)["value"]["purged"]
            if purged != states:
                faults.append(f"{queue} counted {states} messages, a purge ended {purged}")
        lost = [
            number
            for number, entry in self.entries.items()
            if entry.must_be_there() and number not in seen
        ]
        return faults + [f"LOST: message {number}, {self.entries[number]}" for number in lost]

    def _compare_one(self, number: int, queue: str, attempts: int) -> Iterator[str]:
        entry = self.entries.get(number)
        if entry is None:
            yield f"message {number} was never published"
        elif entry.must_be_gone():
            yield f"message {number} came back after its confirmed end: {entry}"
        elif not entry.may_be_in(queue):
            yield f"message {number} is in {queue}: {entry}"
        elif entry.verb in ("nack", "reject") and entry.settled and attempts < 1:
            yield f"message {number} forgot its attempt: {entry}"


def body_of(number: int) -> bytes:
    """Return the body of a message; its number stands in it."""
    return b"%08d" % number * (BODY_BYTES // 8)


def peek(client: RawClient, queue: str) -> Iterator[tuple[int, int]]:
    """Yield (number, counted attempts) of every message of a queue, its body verified."""
    frame = client.ask("peek", queue=queue, count=1_000)
    count = frame["count"]
    sizes = struct.unpack_from(f"<{count}I", frame["columns"])
    at, blob_at = 4 * count, 0
    for index in range(count):
        info: dict[str, Any] = msgpack.unpackb(frame["columns"][at : at + sizes[index]])
        at += sizes[index]
        headers, body = struct.unpack_from("<II", frame["lengths"], 8 * index)
        blob_at += headers + body
        found = frame["blob"][blob_at - body : blob_at]
        number = int(found[:8])
        assert found == body_of(number), f"the body of message {number} is another one"
        yield number, sum(info.get("attempts", {}).values())
