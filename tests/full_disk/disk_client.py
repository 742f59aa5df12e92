"""A client of one queue that publishes until the disk is full, and acks one message at a time; and its ledger."""

from __future__ import annotations

from collections import Counter, deque
from random import Random
from time import monotonic
from typing import Any

from support.raw_client import RawClient

QUEUE = "jobs"
CONSUMER = 1
WINDOW = 1_000  # messages that it holds, in whatever order it acks them
LEASE_MS = 30_000
MOST_NACKS = 3  # of one message; two more and it would go to the DLQ

Id = tuple[int, int]


class DiskLedger:
    """The ids that live for certain, and those whose end was confirmed."""

    def __init__(self) -> None:
        self.live: set[Id] = set()
        self.acked: set[Id] = set()
        self.published = 0
        self.nacked: Counter[Id] = Counter()


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

    def ack_one(self, *, shuffled: bool, extends: bool = False) -> None:
        """Ack one message alone, and wait until that is confirmed; maybe begin it and extend its lease before."""
        message = self._next(shuffled=shuffled)
        if extends:
            self._settle("extend", message, lease_ms=LEASE_MS)
        assert self._settle("ack", message), "an ack is refused"
        self._ended([message])

    def nack_one(self) -> bool:
        """Give one message back as failed, unless it was often; False: the disk has no room for its history."""
        message = self._next(shuffled=True)
        nacked = self.ledger.nacked
        if nacked[message["id"]] == MOST_NACKS:
            self.held.append(message)
            return True
        is_taken = self._settle("nack", message, delay_ms=0)
        if is_taken:
            nacked[message["id"]] += 1
        else:
            self.held.append(message)
        return is_taken

    def thin_out(self, keep_every: int) -> None:
        """Ack all but a few messages, so that each segment is left with about one that lives.

        No more than half of a window, which are held all the time: with a full one nothing comes any more.
        """
        keep_every = max(keep_every, 2 * len(self.ledger.live) // WINDOW)
        kept: list[dict[str, Any]] = []
        try:
            while len(self.ledger.live) > len(kept):
                self._take()
                kept += [message for message in self.held if not message["id"][1] % keep_every]
                some = [message for message in self.held if message["id"][1] % keep_every]
                self.held.clear()
                if some:
                    assert self._settle("ack", *some), "acks are refused"
                    self._ended(some)
        finally:
            self.held.extend(kept)

    def drain(self) -> None:
        """Ack everything that lives, as much as is held at a time."""
        while self.ledger.live:
            if not self.held:  # a full window brings nothing before something of it is acked
                self._take()
            some = list(self.held)
            self.held.clear()
            assert self._settle("ack", *some), "acks are refused"
            self._ended(some)

    def _next(self, *, shuffled: bool) -> dict[str, Any]:
        while not self.held or self._raw.inbox:
            self._take()
        if shuffled:
            self.held.rotate(self._random.randrange(len(self.held)))
        return self.held.popleft()

    def _settle(self, verb: str, *messages: dict[str, Any], **fields: int) -> bool:
        """Settle; False: the disk is full, which an ack never hears."""
        answer = self._raw.answer(self._raw.settle(verb, QUEUE, *messages, **fields))
        if answer["op"] == "error":
            assert (answer["code"], answer["retryable"]) == ("disk_full", True), answer
            return False
        assert answer["results"] == [{"lost": 0}], answer
        return True

    def _ended(self, messages: list[dict[str, Any]]) -> None:
        ids = {message["id"] for message in messages}
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
