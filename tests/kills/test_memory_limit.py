"""Memory full of messages that cannot leave it: publishes are refused, nothing is thrown away, acks go on."""

from __future__ import annotations

from typing import Any

from test_bounded_memory import resident_bytes

from minibrokerd.process.memory import FREE_SHARE
from support.broker import StartBroker
from support.raw_client import RawClient

KIB = 1024
LIMIT_BYTES = 64 * KIB * KIB  # of the process, of which an empty one has more than half
BODY_BYTES, IN_FRAME = 64 * KIB, 8
DELAY_MS = 1_500
KINDS: dict[str, dict[str, Any]] = {  # neither leaves memory
    "keyed": {"key": "k"},
    "delayed": {"delay_ms": DELAY_MS},
}


class Publisher:
    """Publishes numbered bodies; `stored` has those that were confirmed."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self.stored: dict[str, list[int]] = {kind: [] for kind in KINDS}
        self._number = 0

    def publish(self, kind: str) -> str:
        """Publish one frame; return the code of its refusal, "" if there is none."""
        numbers = range(self._number, self._number + IN_FRAME)
        self._number += IN_FRAME
        bodies = [body_of(number) for number in numbers]
        answer = self.client.answer(self.client.publish(kind, bodies, **KINDS[kind]))
        if answer["op"] == "error":
            assert answer["retryable"], answer
            return str(answer["code"])
        self.stored[kind] += numbers
        return ""

    def drain(self, kind: str, count: int) -> list[int]:
        """Receive and ack so many messages; return their numbers."""
        numbers: list[int] = []
        while len(numbers) < count:
            messages = self.client.receive(kind, min(count - len(numbers), 64))
            assert messages, f"{kind} gave {len(numbers)} of {count}"
            assert self.client.confirmed(self.client.settle("ack", kind, *messages)) == {"lost": 0}
            for message in messages:
                numbers.append(int(message["body"][:8]))
                assert message["body"] == body_of(numbers[-1])
        return numbers

    def living(self) -> dict[str, int]:
        """Return how many messages the server has of each kind."""
        queues = self.client.ask("stats")["value"]["queues"]
        states = ("ready", "delayed", "held", "begun")
        return {kind: sum(queues[kind][state] for state in states) for kind in KINDS}


def body_of(number: int) -> bytes:
    """Return the body of a message."""
    return b"%08d" % number * (BODY_BYTES // 8)


def test_full_memory_refuses_publishes_and_lets_everything_else_go_on(
    start_broker: StartBroker,
) -> None:
    """Publishes are `busy` until there is room again; what was confirmed is there, once, in its order."""
    flags = ("--memory-limit", str(LIMIT_BYTES), "--segment-bytes", str(4 * KIB * KIB))
    server = start_broker(*flags)
    client = RawClient(server.host, server.port)
    publisher = Publisher(client)
    code = ""
    while not code:
        for kind in KINDS:
            code = code or publisher.publish(kind)
    assert code == "busy"
    stored = {kind: len(numbers) for kind, numbers in publisher.stored.items()}
    stored_bytes = sum(stored.values()) * BODY_BYTES
    assert stored_bytes > LIMIT_BYTES // FREE_SHARE, "so much may always be in use"
    # It looks each time that a MiB was written; the rest is what it takes to work.
    assert resident_bytes(server) < LIMIT_BYTES + 16 * KIB * KIB
    assert publisher.living() == stored, "nothing is thrown away"
    assert [publisher.publish(kind) for kind in KINDS] == ["busy", "busy"]

    some = stored["keyed"] // 2
    first = publisher.drain("keyed", some)  # acks go on; in the end there is room for more
    # The process may have grown meanwhile, and that moves what is room.
    while publisher.publish("keyed") == "busy":
        assert len(first) < stored["keyed"], "there is none, although a half of all is gone"
        first += publisher.drain("keyed", 64)
    assert (
        first + publisher.drain("keyed", len(publisher.stored["keyed"]) - len(first))
        == (publisher.stored["keyed"])
    )
    assert publisher.drain("delayed", stored["delayed"]) == publisher.stored["delayed"]
    assert publisher.living() == dict.fromkeys(KINDS, 0)
    assert [publisher.publish(kind) for kind in KINDS] == ["", ""]
    client.close()
