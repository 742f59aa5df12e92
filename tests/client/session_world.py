"""A session and a fake server, joined without a socket; the test makes each step."""

from __future__ import annotations

from typing import Any

from fake_server import FakeConnection, FakeServer

from minibroker.session.delivery import Delivery
from minibroker.session.events import Delivered, Event
from minibroker.session.message import MessageData
from minibroker.session.session import Session
from minibroker.session.settlements import BEGUN, ENDED
from support.quiet_shell import QuietShell, Waiter

KEY = ("q", 30_000)


class World:
    """A session and a fake server, joined by calls that the test makes."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.session = Session("tester", QuietShell(), lambda settlements: None)
        self.connect()

    def connect(self) -> list[Event]:
        self.peer = FakeConnection(self.server)
        self.peer.receive(self.session.login())
        return self.read()

    def read(self) -> list[Event]:
        """Give the session what the server sent."""
        data, self.peer.out = b"".join(self.peer.out), []
        return self.session.receive(data)

    def turn(self) -> list[Event]:
        """Write what waits, read what is answered."""
        self.peer.receive(b"".join(self.session.flush(0)))
        return self.read()

    def publish(self, *bodies: bytes) -> None:
        group = self.session.outbox.start(KEY, 0)
        group.add_many(Waiter(), b"", bodies, bytes(len(bodies)), b"", 0)

    def consume(self, prefetch: int = 100) -> Delivery:
        """Return one delivery of all that is ready, its messages begun."""
        self.session.consumers.add(1)
        self.session.request("consume", {"queue": "q", "consumer": 1, "prefetch": prefetch}, "w")
        delivery = next(event.delivery for event in self.turn() if isinstance(event, Delivered))
        for message in delivery.messages:
            message.state = BEGUN
        return delivery


def end(message: MessageData[Any]) -> MessageData[Any]:
    message.state = ENDED
    message.run.delivery.open -= 1
    return message


def settle(message: MessageData[Any]) -> None:
    message.run.settlements.acks.append(end(message))
    message.run.settlements.owe()
