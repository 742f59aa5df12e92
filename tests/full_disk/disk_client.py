"""A client of one queue that publishes until the disk is full, and acks one message at a time; and its ledger."""

from __future__ import annotations

from collections import deque
from random import Random
from time import monotonic
from typing import Any

from support.raw_client import RawClient

QUEUE = "jobs"
CONSUMER = 1
WINDOW = 1_000  # messages that it holds, in whatever order it acks them

Id = tuple[int, int]


class DiskLedger:
    """The ids that live for certain, and those whose end was confirmed."""

    def __init__(self) -> None:
        self.live: set[Id] = set()
        self.acked: set[Id] = set()
        self.published = 0
        self.refused = 0  # acks, for want of space; they were sent again


class DiskClient:
    """One session; it dies with its broker, the ledger stays."""

    def __init__(self, port: int, ledger: DiskLedger, random: Random) -> None:
        self.ledger = ledger
        self.held: deque[dict[str, Any]] = deque()
        self._random = random
        self._raw = RawClient("127.0.0.1", port)

    def close(self) -> None:
        """End the connection."""
        self._raw.close()

    def publish(self, count: int, body_bytes: int) -> bool:
        """Publish some messages in one frame; False: the disk is full, and nothing was stored."""
        answer = self._raw.answer(self._raw.publish(QUEUE, [b"x" * body_bytes] * count))
        if answer["op"] == "error":
            assert (answer["code"], answer["retryable"]) == ("disk_full", True), answer
            return False
        (result,) = answer["results"]
        first = result["first"]
        self.ledger.live |= {(result["origin"], first + n) for n in range(count)}
        self.ledger.published += count
        return True

    def publish_all(self, count: int, body_bytes: int) -> None:
        """Publish until the disk is full."""
        while self.publish(count, body_bytes):
            continue

    def resumed_ms(self, deadline_ms: int) -> float:
        """Publish one message again and again until it is taken; return after how long."""
        began_s = monotonic()
        while not self.publish(1, 100):
            assert monotonic() - began_s < deadline_ms / 1_000, "it does not publish any more"
        return (monotonic() - began_s) * 1_000

    def consume(self, window: int = WINDOW) -> None:
        """Start to consume, or change the window."""
        answer = self._raw.ask("consume", queue=QUEUE, consumer=CONSUMER, prefetch=window)
        assert answer["op"] == "reply", answer

    def ack_one(self, *, shuffled: bool) -> None:
        """Ack one message alone, and wait until that is confirmed."""
        while not self.held or self._raw.inbox:
            self._take()
        if shuffled:
            self.held.rotate(self._random.randrange(len(self.held)))
        message = self.held.popleft()
        while (answer := self._raw.answer(self._raw.settle("ack", QUEUE, message)))[
            "op"
        ] == "error":
            assert (answer["code"], answer["retryable"]) == ("disk_full", True), answer
            self.ledger.refused += 1
        assert answer["results"] == [{"lost": 0}], answer
        self.ledger.live.remove(message["id"])
        self.ledger.acked.add(message["id"])

    def drain(self) -> None:
        """Ack everything that lives, as much as is held at a time."""
        while self.ledger.live:
            self._take()
            some = list(self.held)
            self.held.clear()
            assert self._raw.confirmed(self._raw.settle("ack", QUEUE, *some)) == {"lost": 0}
            ids = {message["id"] for message in some}
            self.ledger.live -= ids
            self.ledger.acked |= ids

    def counters(self) -> dict[str, int]:
        """Return the counters of the queue."""
        counters: dict[str, int] = self._raw.ask("stats")["value"]["queues"][QUEUE]
        return counters

    def living(self) -> int:
        """Return how many messages the broker says that it has."""
        counters = self.counters()
        return sum(counters[state] for state in ("ready", "delayed", "held", "begun"))

    def _take(self) -> None:
        for message in self._raw.delivered(CONSUMER):
            id = message["id"]
            assert id not in self.ledger.acked, f"{id} came back after its confirmed ack"
            assert id in self.ledger.live, f"{id} was never confirmed, and is delivered"
            self.held.append(message)
