"""The client's machine and a server in memory, under one seed: wishes, lost connections, cut bytes, time."""

from __future__ import annotations

from random import Random
from typing import Any

from fake_server import FakeConnection, FakeServer

from minibroker.contract import limits
from minibroker.contract.confirms import Confirm
from minibroker.contract.errors import Closed, MinibrokerError
from minibroker.session.calls import Call
from minibroker.session.deadlines import SLOT_MS
from minibroker.session.delivery import MakeMessage
from minibroker.session.events import Dial, HangUp
from minibroker.session.machine import Machine
from minibroker.session.message import MessageData
from minibroker.session.settlements import BEGUN, ENDED, Settlement
from minibroker.session.subscription import Subscription
from minibroker.sync.waiter import Over, Waiter

QUEUES = ("a", "b")


class Asked:
    """One call of an application: its waiter, and until when it must have its answer."""

    def __init__(self, waiter: Waiter, by_ms: int, body: bytes = b"") -> None:
        self.waiter = waiter
        self.by_ms = by_ms
        self.body = body
        self.call: Call | None = None


class MachineWorld:
    """Steps of one random life; `close` ends it and checks what is left."""

    make_message: MakeMessage = MessageData
    is_over: type[Exception] = Over

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 1_000
        self.server = FakeServer()
        self.peer: FakeConnection | None = None
        self.to_server, self.to_client = b"", b""
        self.dials = False
        self.machine = Machine("model", 2_000, 1_000, self.random.uniform, self)
        self.asked: list[Asked] = []
        self.begun: list[MessageData[Any]] = []
        self.bodies = 0
        self.machine.connect(self.now)

    # ---- the shell that the machine sees ----

    def schedule(self) -> None:
        """Everything is flushed after each step."""

    def ripe(self, settlements: Any) -> None:
        """Likewise."""

    def step(self) -> None:
        """Do one thing, by chance."""
        acts = [self.publish, self.publish, self.ask, self.receive, self.consume, self.settle]
        acts += [self.settle, self.cancel, self.tick, self.move, self.move, self.move, self.move]
        act = self.random.choice([*acts, self.lose, self.refuse])
        act()
        self.settle_down()

    def settle_down(self) -> None:
        """Write what the machine has to say, and do what it asks for."""
        while True:
            frames = self.machine.flush(self.now)
            for frame in frames:
                assert len(frame) <= limits.MAX_FRAME_BYTES
            if self.peer is not None:
                self.to_server += b"".join(frames)
            effects = self.machine.take_effects()
            for effect in effects:
                if isinstance(effect, HangUp):
                    self._hang_up()
                self.dials = self.dials or isinstance(effect, Dial)
            if not frames and not effects:
                break
        late = [
            each
            for each in self.asked
            if each.by_ms + SLOT_MS < self.now and not each.waiter.done()
        ]
        assert not late, "a call outlived its deadline"

    def _hang_up(self) -> None:
        if self.peer is not None:
            self.peer.give_back()
        self.peer, self.to_server, self.to_client = None, b"", b""
        self.dials = False

    # ---- what happens ----

    def publish(self) -> None:
        """One message, for one caller."""
        timeout_ms = self.random.choice([50, 500, 5_000])
        key = (self.random.choice(QUEUES), timeout_ms)
        group = self.machine.session.outbox.open.get(key) or self.machine.open_group(key, self.now)
        self.bodies += 1
        asked = Asked(Waiter(), group.deadline_ms, b"%d" % self.bodies)
        group.add(asked.waiter, b"", asked.body, 0, b"", 0)
        self.asked.append(asked)

    def ask(self) -> None:
        """Something that is answered once."""
        self._ask("queue_show", {"queue": "a"})

    def receive(self) -> None:
        """Messages, begun."""
        self._ask("receive", {"queue": "a", "count": 3, "wait_ms": 0, "lease_ms": 0})

    def consume(self) -> None:
        """A consumer comes, or one goes."""
        consumers = self.machine.consumers
        if len(consumers) < 2:
            settlements = self.machine.session.settlements_of("b")
            consumer = Subscription("b", 4, 0, settlements)
            self.machine.subscribe(consumer)
            self._ask("consume", consumer.fields())
            consumer.is_agreed = True
        else:
            self.machine.retire(self.random.choice(list(consumers.values())))

    def _ask(self, op: str, fields: dict[str, object]) -> None:
        asked = Asked(Waiter(), self.now + self.random.choice([30, 300, 3_000]))
        asked.call = self.machine.calls.ask(asked.waiter, op, fields, asked.by_ms)
        self.asked.append(asked)

    def settle(self) -> None:
        """Begin what a consumer has, or end what is begun, in one of the ways."""
        for consumer in self.machine.consumers.values():
            for message in consumer.take_buffer()[:4]:
                message.state = BEGUN
                consumer._settlements.begins.append(message)
                consumer._settlements.owe()
                self.begun.append(message)
        self.begun = [message for message in self.begun if message.state != ENDED]
        if self.begun:
            message = self.begun.pop(self.random.randrange(len(self.begun)))
            settlements = message.run.settlements
            message._end()
            if self.random.random() < 0.7:
                settlements.acks.append(message)
            else:
                settlements.others.append(
                    Settlement(self.random.choice(["nack", "release"]), message)
                )
            settlements.owe()
            if self.random.random() < 0.5:
                asked = Asked(Waiter(), self.now + 2_000)
                self.machine.await_settled(asked.waiter, message, settlements, asked.by_ms, False)
                self.asked.append(asked)

    def cancel(self) -> None:
        """A caller goes, before or behind its answer."""
        if self.asked:
            asked = self.random.choice(self.asked[-5:])
            asked.waiter.cancel()
            if asked.call is not None and asked.waiter.cancelled():
                self.machine.calls.gave_up(asked.call)

    def tick(self) -> None:
        """Time passes."""
        self.now += self.random.choice([1, 10, 100, 400])
        self.machine.due(self.now)
        if self.dials and self.random.random() < 0.8:
            self._connect()

    def _connect(self) -> None:
        self.dials = False
        if self.machine.dialled(self.now):
            self.peer = FakeConnection(self.server)

    def move(self) -> None:
        """Some bytes arrive, here or there."""
        if self.dials:
            self._connect()
        elif self.peer is not None:
            cut = self.random.choice([1, 7, 100, 10_000])
            data, self.to_server = self.to_server[:cut], self.to_server[cut:]
            if data:
                self.peer.receive(data)
            self.to_client += b"".join(self.peer.out)
            self.peer.out.clear()
            cut = self.random.choice([1, 7, 100, 10_000])
            data, self.to_client = self.to_client[:cut], self.to_client[cut:]
            if data:
                self.machine.received(data, self.now)
                self._take_answers()

    def _take_answers(self) -> None:
        for asked in self.asked:
            if asked.call is not None and asked.call.op == "receive" and asked.waiter.done():
                delivery, asked.call = asked.waiter._value, None
                for message in delivery.messages if delivery is not None else ():
                    if message.state != ENDED:
                        message.state = BEGUN
                        self.begun.append(message)

    def lose(self) -> None:
        """The connection is lost, or the attempt at one."""
        if self.random.random() < 0.3 and (self.peer is not None or self.dials):
            self._hang_up()
            self.machine.ended(ConnectionResetError("by chance"), self.now)

    def refuse(self) -> None:
        """The server is full, or has room again."""
        if self.random.random() < 0.5:
            self.server.refuse = lambda header: None
        else:
            self.server.refuse = self._refused

    def _refused(self, header: dict[str, Any]) -> dict[str, Any] | None:
        """Refuse a publish for now, if it has no outcome already, which a server would repeat."""
        if header["parts"][0]["op"] != "publish" or header["sequence"] in self.server.outcomes:
            return None
        return {"code": "busy", "text": "full", "retryable": True, "retry_ms": 50}

    # ---- the end ----

    def close(self) -> None:
        """Let everything have its answer, then look at what is left."""
        self.server.refuse = lambda header: None
        for _ in range(200):
            self.now += 50
            self.machine.due(self.now)
            if self.dials:
                self._connect()
            self.settle_down()
            for _ in range(4):
                self.move()
                self.settle_down()
        assert all(asked.waiter.done() for asked in self.asked)
        self._check_publishes()
        self.machine.close("the end", self.now)
        self.settle_down()
        try:
            self.machine.check_open()
        except Closed:
            return
        raise AssertionError("it is closed")

    def _check_publishes(self) -> None:
        """Each confirmed one is stored once, under its id; one that was not sent is not stored."""
        stored: dict[bytes, list[tuple[int, int]]] = {}
        for name in QUEUES:
            queue = self.server.queue(name)
            for sequence, body in self.server.published[name]:
                stored.setdefault(body, []).append((queue.number, sequence))
        for asked in self.asked:
            if not asked.body or asked.waiter.cancelled():
                continue
            places = stored.get(asked.body, [])
            assert len(places) <= 1, "stored twice"
            error = asked.waiter.exception()
            if error is None:
                confirm = asked.waiter.result()
                assert isinstance(confirm, Confirm)
                assert places == [(confirm.origin, confirm.sequence)]
            else:
                assert isinstance(error, MinibrokerError)
                assert not (error.code in ("not_sent", "busy") and places), error.code
