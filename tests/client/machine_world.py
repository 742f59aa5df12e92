"""The client's machine and the server's core, under one seed: wishes, cut bytes, callers who go, lost connections.

    life = MachineWorld(seed)
    for _ in range(120):
        life.step()
    life.close()

`step` does one thing by chance, and looks whether a call outlived its deadline. `close` lets everything have its
answer, then compares what the application was told with what the server has: each confirmed message is stored
once, each confirmed settlement counts, and nothing is held for nobody.
"""

from __future__ import annotations

from random import Random
from typing import Any

from core_server import CorePeer, CoreServer
from machine_callers import Callers
from machine_hands import Hands

from minibroker.session.deadlines import SLOT_MS
from minibroker.session.delivery import MakeMessage
from minibroker.session.events import Dial, HangUp, Lost
from minibroker.session.machine import Machine
from minibroker.session.message import MessageData
from minibroker.sync.waiter import Over

CUTS = (1, 7, 100, 10_000)  # bytes that arrive at once
ROUNDS = 400  # of 50 ms, within which everything is answered
LOST_CODES = ("lease_lost", "unknown_queue", "outcome_unknown")


class MachineWorld:
    """Steps of one random life; `close` ends it and checks what is left."""

    make_message: MakeMessage = MessageData
    is_over: type[Exception] = Over

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 1_000
        self.server = CoreServer()
        self.server.bind("e", (("a", "a"), ("a", "both"), ("b", "both")))
        self.peer: CorePeer | None = None
        self.to_server, self.to_client = b"", b""
        self.dials = False
        self.machine = Machine("model", 2_000, 1_000, self.random.uniform, self)
        self.callers = Callers(self)
        self.hands = Hands(self)
        self.restarts = self.random.random() < 0.3
        self.machine.connect(self.now)
        self.settle_down()

    # ---- the shell that the machine sees ----

    def schedule(self) -> None:
        """Everything is flushed behind each step, or behind a few."""

    def ripe(self, settlements: Any) -> None:
        """Likewise."""

    # ---- steps ----

    def step(self) -> None:
        """Do one thing, by chance; now and then several wishes come in one turn, as of several tasks."""
        callers, hands, random = self.callers, self.hands, self.random
        wishes = [callers.publish, callers.publish, callers.publish_many, callers.ask]
        wishes.append(callers.route)
        wishes += [callers.receive, callers.receive, hands.consume, hands.settle, hands.settle]
        wishes += [hands.begin, hands.wait, hands.wait, hands.extend, callers.go, callers.go]
        inputs = [self.tick, self.sync, *[self.move] * 6, self.lose, self.fill]
        if self.restarts:
            inputs.append(self.restart)
        if random.random() * (len(wishes) + len(inputs)) < len(wishes):
            random.choice(wishes)()
            if random.random() < 0.2:
                return
        else:
            self.settle_down()
            random.choice(inputs)()
        self.settle_down()

    def settle_down(self) -> None:
        """Write what the machine has to say, and do what it asks for."""
        while True:
            frames = self.machine.flush(self.now)
            if self.peer is not None:
                self.to_server += b"".join(frames)
            effects = self.machine.take_effects()
            for effect in effects:
                if isinstance(effect, HangUp):
                    self._hang_up(effect.last)
                elif isinstance(effect, Lost):
                    assert getattr(effect.error, "code", "") in LOST_CODES, effect.error
                self.dials = self.dials or isinstance(effect, Dial)
            if not frames and not effects:
                break
        self.hands.note_opened()
        late = [each.what for each in self.callers.waiting() if each.by_ms + SLOT_MS < self.now]
        assert not late, f"{late} outlived their deadlines"

    def _hang_up(self, last: bytes) -> None:
        if self.peer is not None:
            if last:
                self.peer.receive(self.to_server + last)
            self.peer.lose()
        self.peer, self.to_server, self.to_client = None, b"", b""
        self.dials = False

    # ---- what happens ----

    def tick(self) -> None:
        """Time passes."""
        self.pass_ms(self.random.choice([1, 10, 100, 400]))
        if self.dials and self.random.random() < 0.8:
            self._connect()

    def pass_ms(self, duration_ms: int) -> None:
        """Let time pass on both sides."""
        self.now += duration_ms
        self.server.advance(duration_ms)
        self.machine.due(self.now)

    def sync(self) -> None:
        """What the server has applied is safe, and its answers leave."""
        self.server.sync()

    def move(self) -> None:
        """Some bytes arrive, here or there."""
        if self.dials:
            self._connect()
        elif self.peer is not None:
            cut = self.random.choice(CUTS)
            data, self.to_server = self.to_server[:cut], self.to_server[cut:]
            if data:
                self.peer.receive(data)
            self.to_client += b"".join(self.peer.out)
            self.peer.out.clear()
            cut = self.random.choice(CUTS)
            data, self.to_client = self.to_client[:cut], self.to_client[cut:]
            if data:
                self.machine.received(data, self.now)
            elif self.peer is not None and self.peer.closed:
                self._ended()

    def _connect(self) -> None:
        self.dials = False
        if self.machine.dialled(self.now):
            self.peer = self.server.connect()

    def lose(self) -> None:
        """The connection is lost, or the attempt at one."""
        if self.random.random() < 0.3 and (self.peer is not None or self.dials):
            if self.peer is not None and self.random.random() < 0.5:
                self.peer.receive(self.to_server)  # the answers to it are lost
            self._ended()

    def _ended(self) -> None:
        self._hang_up(b"")
        self.machine.ended(ConnectionResetError("by chance"), self.now)

    def fill(self) -> None:
        """The server is full, or has room again."""
        self.server.full = self.random.random() < 0.4

    def restart(self) -> None:
        """The server stops, or crashes, and is back; connections are found to be ended."""
        if self.random.random() < 0.3:
            clean = self.random.random() < 0.3
            self.server.restart(clean=clean, lose_unsynced=self.random.random() < 0.5)

    # ---- the end ----

    def close(self) -> None:
        """Let everything have its answer, or end in the middle of it; then look at what is left."""
        self.settle_down()
        if self.random.random() < 0.2:
            self._leave()
            return
        self.server.full = False
        self._wait()
        session = self.machine.session.session_id
        assert session is not None
        self._check_server(session)
        self.callers.check(self.server)
        self.hands.check(self.server)
        self.hands.let_go()
        self._wait()
        self._check_server(session)
        queues = self.server.store.queues.values()
        assert not any(queue.group.held + queue.group.begun for queue in queues), "held for nobody"
        self._leave()

    def _wait(self) -> None:
        self.settle_down()
        for _ in range(ROUNDS):
            if self._is_quiet():
                return
            self.pass_ms(50)
            if self.dials:
                self._connect()
            self.settle_down()
            for _ in range(4):
                self.sync()
                self.move()
                self.settle_down()
        open_calls = [each.what for each in self.callers.waiting()]
        raise AssertionError(f"no end: {open_calls}, {self.machine.trouble}")

    def _is_quiet(self) -> bool:
        machine, peer = self.machine, self.peer
        if peer is None or peer.closed or not machine.session.is_open:
            return False
        if self.to_server or self.to_client or peer.out or self.callers.waiting():
            return False
        session = machine.session
        return not session.requests._waiting and machine.leaving.is_drained(True)

    def _check_server(self, session: int) -> None:
        """What the server holds and waits for is for somebody here."""
        store = self.server.store
        assert set(store.sessions) == {session}, "sessions of nobody"
        connection = store.connections[store.sessions[session].connection]
        assert not connection.receives, f"receives of nobody: {list(connection.receives)}"
        assert set(connection.consumers) == set(self.machine.consumers), "consumers of nobody"
        unknown = self.server.in_hands(session) - self.hands.names()
        assert not unknown, f"held for nobody: {unknown}"
        tokens = set(store.deliveries) - store.sessions[session].deliveries
        assert not tokens, f"deliveries of no session: {tokens}"

    def _leave(self) -> None:
        """Close, maybe in the middle of everything: nobody waits on, and the server forgets the session."""
        is_open = self.machine.session.is_open and self.peer is not None and not self.peer.closed
        session = self.machine.session.session_id
        begun = self.hands.begun_names()
        self.machine.close("the end", self.now)
        open_calls = [each.what for each in self.callers.waiting()]
        assert not open_calls, f"they wait on after the end: {open_calls}"
        self.settle_down()
        self.sync()
        if is_open and session in self.server.store.sessions:
            # What an application has begun waits for its lease: it may be at work still.
            assert session is not None
            # So does what was begun on its way to a handler that waited.
            on_the_way = self.server.handed_to(session)
            unknown = self.server.in_hands(session) - begun - on_the_way
            assert not unknown, f"held for nobody, who said goodbye: {unknown}"
            assert begun or on_the_way, "a session of nobody, who said goodbye"
