"""What stands around the client's machine in a world: a link for its socket, the world's time for its clock.

It does what the shells of the client do, and decides nothing: connecting again, deadlines, signs of life, what is
sent again and what is taken back are the machine's. The application on top is sim_client.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from sim_answer import Answer, Over, Told
from sim_loop import Handle, Life, LifeLoop
from sim_network import Link
from sim_tap import Tap

from minibroker.contract.errors import ProtocolError
from minibroker.session.calls import Call
from minibroker.session.delivery import MakeMessage
from minibroker.session.events import (
    Again,
    Away,
    Dial,
    Differs,
    HangUp,
    Leaving,
    Lost,
    NotDeclared,
    Opened,
    Renew,
)
from minibroker.session.machine import Machine
from minibroker.session.message import MessageData
from minibroker.session.settlements import Settlements
from minibroker.session.timers import NEVER_MS

if TYPE_CHECKING:
    from sim_world import World

CONNECT_MS = 5_000


class WatchedMachine(Machine):
    """The client's machine; `complain` is told when it cannot make sense of what the server says."""

    complain: Callable[[Exception], None]

    def fail(self, error: Exception, now_ms: int) -> None:
        """End the connection because of `error`."""
        if isinstance(error, ProtocolError):
            self.complain(error)
        super().fail(error, now_ms)


class MachineShell:
    """One process at a time with one machine; `start` begins it, `life.over` ends it."""

    make_message: MakeMessage = MessageData
    is_over: type[Exception] = Over

    def __init__(self, world: World, name: str, timeout_ms: int, seed: int) -> None:
        self.world = world
        self.name = name
        self.timeout_ms = timeout_ms
        self.random = Random(seed)
        self._effects: Mapping[type, Callable[[Any], None]] = {
            Dial: self._dial,
            HangUp: self._hang_up,
            Opened: self.opened,
            Lost: self.lose,
            Away: _nothing,
            Again: _nothing,
            Renew: _nothing,  # applications here extend by themselves, or let a lease end
            Leaving: _nothing,
            Differs: _nothing,
            NotDeclared: _nothing,
        }
        self.start()

    def start(self) -> None:
        """Begin a process: a machine that knows nothing of the one before."""
        self.life = Life()
        self.loop = LifeLoop(self.world.loop, self.life)
        self.link: Link | None = None
        self.waiting: dict[Answer, None] = {}
        self._attempt = 0  # to dial
        self._flush_due = False
        self._timer: Handle | None = None
        self._armed_ms = NEVER_MS
        uniform = self.random.uniform
        self.machine = machine = WatchedMachine(
            self.name, self.timeout_ms, CONNECT_MS, uniform, self
        )
        machine.complain = lambda error: self._complain(str(error))
        self.session = machine.session
        self.tap = Tap(self.session, self._refused)
        self.loop.call_later(self.random.uniform(0, 0.2), self._connect)

    def now_ms(self) -> int:
        """Return the time of the machine."""
        return self.world.loop.now_us // 1_000

    # -- the connection -------------------------------------------------------------------------

    def _connect(self) -> None:
        self.machine.connect(self.now_ms())
        self.after()

    def _dial(self, effect: Dial) -> None:
        self._attempt += 1
        slow = self.random.random() < 0.02 and not self.world.draining
        delay_s = self.random.uniform(0, 2 * CONNECT_MS / 1_000 if slow else 0.01)
        self.loop.call_later(delay_s, self._dialled, self._attempt)

    def _dialled(self, attempt: int) -> None:
        if attempt != self._attempt:
            return
        link = self.world.accept(self)
        if link is None:
            self.machine.ended(ConnectionRefusedError("nobody listens"), self.now_ms())
        elif self.machine.dialled(self.now_ms()):
            self.link = link
            self.tap.opened()
            self.flush()
        else:
            link.drop()
        self.after()

    def is_cut_off(self) -> bool:
        """Return whether nothing that it says arrives."""
        return self.link is None or self.link.half_open

    def lost(self, link: Link) -> None:
        """The connection ended."""
        if link is self.link:
            self.link = None
            self._parted()
            self.machine.ended(ConnectionResetError("the connection was reset"), self.now_ms())
            self.after()

    def _hang_up(self, effect: HangUp) -> None:
        self._attempt += 1
        link, self.link = self.link, None
        if link is not None:
            self._parted()
            if effect.last:
                link.send(effect.last)
            link.drop()

    def _parted(self) -> None:
        self.world.checker.troubles += 1
        self.world.checker.returned()

    def receive(self, link: Link, data: bytes) -> None:
        """Take bytes that arrived."""
        if link is not self.link:
            return
        session = self.session.session_id
        self.tap.came(data)
        machine = self.machine
        machine.received(data, self.now_ms())
        if session != self.session.session_id:
            self.tap.forget()
        if machine.frames:
            self.flush()
        else:
            self.after()
            if self.session.has_work():
                self.schedule()

    def _refused(self, code: str, text: str) -> None:
        if code != "shutting_down":
            self._complain(f"{code}: {text}")

    def _complain(self, text: str) -> None:
        self.world.checker.violation("protocol", f"{self.name} was told: {text}")

    # -- what the machine asks for --------------------------------------------------------------

    def after(self) -> None:
        """Do what the last step asks for."""
        machine = self.machine
        while machine.effects:
            for effect in machine.take_effects():
                self._effects[type(effect)](effect)
        if machine.timers.wake_ms < self._armed_ms:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_ms = self.machine.timers.wake_ms
        if self._armed_ms < NEVER_MS:
            delay_s = max(0, self._armed_ms - self.now_ms()) / 1_000
            self._timer = self.loop.call_later(delay_s, self._due)

    def _due(self) -> None:
        # The loop can fire a little early: the armed time counts then.
        at_ms, self._armed_ms = max(self._armed_ms, self.now_ms()), NEVER_MS
        self._timer = None
        self.machine.due(at_ms)
        self.flush()

    def schedule(self) -> None:
        """Flush at the end of this turn."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._flush_due = False
        self.flush()

    def flush(self) -> None:
        """Write what may be written."""
        frames = self.machine.flush(self.now_ms())
        if frames and self.link is not None:
            self.link.send(b"".join(frames))
        self.after()

    def ripe(self, settlements: Settlements) -> None:
        """See to it that settlements leave."""
        self.schedule()

    # -- what an application asks for -----------------------------------------------------------

    def ask(
        self,
        op: str,
        fields: Mapping[str, object],
        told: Told,
        within_ms: int | None = None,
        *,
        columns: bytes = b"",
    ) -> Call:
        """Ask, until a deadline; `told` gets the answer or the error."""
        by_ms = self.now_ms() + (self.timeout_ms if within_ms is None else within_ms)
        return self.machine.calls.ask(Answer(self, op, by_ms, told), op, fields, by_ms, columns)

    def give_up(self, call: Call) -> None:
        """Go while a call waits, or in the very turn in which it is answered."""
        call.waiter.cancel()
        self.machine.calls.gave_up(call)
        self.after()

    # -- for the application --------------------------------------------------------------------

    def opened(self, effect: Opened) -> None:
        """There is a connection."""

    def lose(self, effect: Lost) -> None:
        """Messages are not this client's any more."""


def _nothing(effect: Any) -> None:
    """It is told to people, and there are none."""
