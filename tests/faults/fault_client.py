"""The workload: about thirty messages through segments of 64 KiB, one operation at a time, each in the ledger."""

from __future__ import annotations

from time import time
from typing import Any

from fault_ledger import DLQ, GONE, QUEUE, Entry, Ledger, body_of

from support.raw_client import RawClient

Delivered = dict[str, Any]
WAIT_MS = 5_000
ROUNDS = (
    22  # of one message each: into the third segment, so that the first is copied out of and freed
)


class FaultClient:
    """One session, and the ledger of what it asks and is told.

    Raises (in all methods):
        ConnectionError: the broker is gone; the ledger says how far it came.
    """

    def __init__(self, port: int, ledger: Ledger) -> None:
        self.ledger = ledger
        self.raw = RawClient("127.0.0.1", port)

    def close(self) -> None:
        """End the connection."""
        self.raw.close()

    def run_all(self) -> None:
        """Publish, ack, nack, reject, delete a queue, and go on until the oldest segment is freed."""
        for _ in range(6):
            self.publish()
        one, two, three, four, five, _ = self.receive(6)
        self.settle("ack", one)
        self.settle("nack", two, delay_ms=0)
        self.settle("reject", three)
        (again,) = self.receive(1)
        self.settle("ack", again)
        self.settle("ack", four, five)
        self.publish(GONE)
        self.delete(GONE)
        for _ in range(ROUNDS):
            self.publish()
            self.settle("ack", *self.receive(1))

    def pile_up(self) -> None:
        """Publish what fills some segments, so that the next start has messages that are not in memory."""
        for _ in range(ROUNDS):
            self.publish()

    def run_back(self) -> None:
        """Have messages read back, and copied forward while others pass."""
        self.settle("ack", *self.receive(10))
        for _ in range(ROUNDS):
            self.publish()
            self.settle("ack", *self.receive(1))

    def run_some(self) -> None:
        """A few operations, for a broker that starts on what another one left."""
        for _ in range(3):
            self.publish()
        one, two = self.receive(2)
        self.settle("ack", one)
        self.settle("nack", two, delay_ms=0)

    def publish(self, queue: str = QUEUE) -> None:
        """Publish one message; on a full disk again and again, until there is room."""
        number = self.ledger.new(queue)
        while True:
            asked_s = time()
            answer = self.raw.answer(self.raw.publish(queue, [body_of(number)]))
            if answer["op"] == "confirm":
                break
            assert answer["code"] == "disk_full", answer
            assert answer["retryable"], answer
        self._told(asked_s)
        self.ledger.entries[number].stored = True

    def receive(self, count: int) -> list[Delivered]:
        """Receive so many messages, begun."""
        messages = self.raw.receive(QUEUE, count, WAIT_MS)
        assert len(messages) == count, f"{len(messages)} messages came, not {count}"
        return messages

    def settle(self, verb: str, *messages: Delivered, **fields: int) -> None:
        """Settle messages and wait for the confirm."""
        entries = [self._entry(message) for message in messages]
        for entry in entries:
            entry.verb, entry.settled = verb, False
        asked_s = time()
        result = self.raw.confirmed(self.raw.settle(verb, QUEUE, *messages, **fields))
        assert result == {"lost": 0}, result
        self._told(asked_s)
        for entry in entries:
            entry.settled = True

    def delete(self, queue: str) -> None:
        """Delete a queue with what is in it."""
        ended = [entry for entry in self.ledger.entries.values() if entry.queue == queue]
        for entry in ended:
            entry.verb = "delete"
        asked_s = time()
        answer = self.raw.ask("queue_delete", queue=queue, force=1)
        assert answer["op"] == "reply", answer
        self._told(asked_s)
        for entry in ended:
            entry.settled = True

    def _entry(self, message: Delivered) -> Entry:
        number = int(message["body"][:8])
        assert message["body"] == body_of(number), f"the body of message {number} is another one"
        return self.ledger.entries[number]

    def _told(self, asked_s: float) -> None:
        self.ledger.confirms.append((asked_s, time()))


__all__ = ["DLQ", "FaultClient"]
