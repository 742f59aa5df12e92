"""What the application of a random life has in hand: consumers, what they hold, what is begun, and how it ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from core_server import CoreServer, Id

from minibroker.contract.errors import LeaseLost, MinibrokerError
from minibroker.session.message import MessageData
from minibroker.session.pacing import Prefetch, prefetch_of
from minibroker.session.settlements import BEGUN, ENDED, TOLD, Settlement
from minibroker.session.subscription import Subscription
from minibroker.sync.waiter import Waiter

if TYPE_CHECKING:
    from machine_callers import Asked
    from machine_world import MachineWorld

OPS = ("ack", "ack", "ack", "nack", "reject", "release")


class Hands:
    """Consumers and begun messages of one life."""

    def __init__(self, world: MachineWorld) -> None:
        self._world = world
        self._machine = world.machine
        self._random = world.random
        self._begun: list[MessageData[Any]] = []
        self._waiting: list[tuple[Subscription, Waiter]] = []
        self._settled: list[tuple[str, MessageData[Any], Asked | None]] = []
        self._opening: dict[Subscription, Asked] = {}

    def take(self, messages: Iterable[MessageData[Any]]) -> None:
        """Take what came for a receive, begun."""
        for message in messages:
            if message.state != ENDED:
                message.state = BEGUN
                self._begun.append(message)

    def names(self) -> set[tuple[int, int, int]]:
        """Return (token, origin, sequence) of all that is held or begun here."""
        held = [m for consumer in self._machine.consumers.values() for m in consumer._buffer]
        return {(m.token, m.origin, m.sequence) for m in held} | self.begun_names()

    def begun_names(self) -> set[tuple[int, int, int]]:
        """Return (token, origin, sequence) of all that is begun here."""
        self._begun = [message for message in self._begun if message.state != ENDED]
        return {(m.token, m.origin, m.sequence) for m in self._begun}

    # ---- consumers ----

    def consume(self) -> None:
        """A consumer comes, or one goes: while it opens, or later."""
        consumers = self._machine.consumers
        if len(consumers) >= 2 or (consumers and self._random.random() < 0.3):
            self._end(self._random.choice(list(consumers.values())))
            return
        queue = self._random.choice(("a", "b"))
        settlements = self._machine.session.settlements_of(queue)
        prefetch: Prefetch = self._random.choice((1, 4, "auto"))
        consumer = Subscription(queue, prefetch_of(prefetch), 0, settlements)
        self._machine.subscribe(consumer)
        self._opening[consumer] = self._world.callers.request("consume", consumer.fields())

    def note_opened(self) -> None:
        """As the code behind the call goes on: it is agreed, or its error has the consumer forgotten."""
        for consumer, asked in list(self._opening.items()):
            if asked.waiter.done():
                del self._opening[consumer]
                if asked.gone or asked.waiter.exception() is not None:
                    self._machine.forget(consumer)
                else:
                    consumer.is_agreed = True

    def _end(self, consumer: Subscription) -> None:
        asked = self._opening.pop(consumer, None)
        if asked is not None:
            asked.waiter.cancel()
            assert asked.call is not None
            self._machine.calls.gave_up(asked.call)
            self._machine.forget(consumer)
        else:
            self._machine.retire(consumer)

    # ---- messages ----

    def begin(self) -> None:
        """Begin some of what a consumer holds, in order."""
        for consumer in self._machine.consumers.values():
            for _ in range(self._random.randint(0, 4)):
                if consumer._buffer:
                    message = consumer._buffer.popleft()
                    message.state = TOLD if message.run.delivery.handed else BEGUN
                    if message.state == BEGUN:
                        message.run.settlements.begins.append(message)
                        message.run.settlements.owe()
                    self._begun.append(message)

    def wait(self) -> None:
        """Wait for messages; or no more, though one may have been meant for who goes."""
        consumers = list(self._machine.consumers.values())
        if not consumers:
            return
        consumer = self._random.choice(consumers)
        mine = [waiter for of, waiter in self._waiting if of is consumer]
        if mine and self._random.random() < 0.4:
            waiter = self._random.choice(mine)
            self._waiting.remove((consumer, waiter))
            if waiter.done():
                consumer.pass_on()
            else:
                waiter.cancel()
        elif not consumer._buffer:
            self._waiting.append((consumer, Waiter()))
            consumer._wait(self._waiting[-1][1], self._world.now)

    def settle(self) -> None:
        """End something that is begun, in one of the ways."""
        self._begun = [message for message in self._begun if message.state != ENDED]
        if self._begun:
            message = self._begun.pop(self._random.randrange(len(self._begun)))
            self._settle(message, self._random.choice(OPS))
            self.wait()  # for the next one, in the same turn

    def _settle(self, message: MessageData[Any], op: str) -> None:
        settlements = message.run.settlements
        message._end()
        if op == "ack":
            settlements.acks.append(message)
        else:
            delay_ms = self._random.choice((None, 0, 300)) if op == "nack" else None
            settlements.others.append(Settlement(op, message, delay_ms, b"E", b"text"))
        settlements.owe()
        asked = self._await(op, message) if self._random.random() < 0.6 else None
        self._settled.append((op, message, asked))

    def extend(self) -> None:
        """Renew the lease of something that is begun."""
        self._begun = [message for message in self._begun if message.state != ENDED]
        if self._begun:
            message = self._random.choice(self._begun)
            message.run.settlements.others.append(Settlement("extend", message, 30_000))
            self._await("extend", message)

    def _await(self, op: str, message: MessageData[Any]) -> Asked:
        asked = self._world.callers.wait(op, self._world.now + 2_000)
        settlements = message.run.settlements
        self._machine.await_settled(asked.waiter, message, settlements, asked.by_ms, op == "extend")
        return asked

    # ---- the end ----

    def check(self, server: CoreServer) -> None:
        """A settlement counts if that was confirmed, and only then; what nobody acked is there."""
        living, ended = server.living(), set[Id]()
        for op, message, asked in self._settled:
            if op == "ack":
                ended.add(message.id)
            if asked is None or asked.waiter.cancelled():
                continue
            error = asked.waiter.exception()
            if error is None and op == "ack":
                assert message.id not in living, f"{message.id} was acked, and is there"
            assert error is None or isinstance(error, MinibrokerError)
            if op != "ack" and error is None:
                later = [other for _, other, _ in self._settled if other.id == message.id]
                assert message.id in living or later[-1] is not message, f"{message.id} is gone"
            if isinstance(error, LeaseLost) and op == "ack":
                acks = [m for o, m, _ in self._settled if o == "ack" and m.id == message.id]
                assert message.id in living or len(acks) > 1, f"a lost ack ended {message.id}"
        stored = {each[0] for found in server.stored().values() for each in found}
        assert stored - living <= ended, f"ended by nobody: {stored - living - ended}"

    def let_go(self) -> None:
        """End all consumers, and give back what is begun."""
        for consumer in list(self._machine.consumers.values()):
            self._end(consumer)
        for message in self._begun:
            if message.state != ENDED:
                self._settle(message, "release")
        self._begun = []
