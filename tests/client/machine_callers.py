"""The callers of a random life: publishes and requests, their deadlines, and those who go before their answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core_server import CoreServer, Id

from minibroker.contract.confirms import Confirm, ConfirmRun
from minibroker.contract.errors import MinibrokerError
from minibroker.session.calls import Call
from minibroker.session.exchange_wishes import route_place
from minibroker.session.message import Delivery
from minibroker.session.outbox import MESSAGE_RESERVE, Key, PublishGroup
from minibroker.session.route_groups import RouteGroup
from minibroker.sync.waiter import Waiter

if TYPE_CHECKING:
    from machine_world import MachineWorld

QUEUES = ("a", "b")
KEYS = ("a", "both", "none")  # routing keys: of the queue a, of both, and of nothing
NOT_STORED = ("unroutable", "not_sent", "busy", "too_large", "disk_full")


class Asked:
    """One call of an application: its waiter, and until when it must have its answer."""

    __slots__ = ("bodies", "by_ms", "call", "gone", "terms", "waiter", "what", "withdrawn")

    def __init__(self, what: str, by_ms: int, bodies: tuple[bytes, ...] = ()) -> None:
        self.waiter = Waiter()
        self.what = what
        self.by_ms = by_ms
        self.bodies = bodies
        self.terms: tuple[bytes, int, int] = (b"", 0, 0)  # key, encoding, and delay in ms
        self.call: Call | None = None
        self.gone = False  # its caller, before its answer or in the very turn in which it came
        self.withdrawn = False  # it went before anything of it was written


class Callers:
    """All calls of one life."""

    def __init__(self, world: MachineWorld) -> None:
        self._world = world
        self._machine = world.machine
        self._random = world.random
        self._all: list[Asked] = []
        self._open: list[Asked] = []
        self._count = 0

    def waiting(self) -> list[Asked]:
        """Return the calls that have no answer; what others received is in hand now."""
        done = [each for each in self._open if each.waiter.done()]
        if done:
            self._open = [each for each in self._open if not each.waiter.done()]
            for each in done:
                self._take(each)
        return self._open

    def wait(self, what: str, by_ms: int, bodies: tuple[bytes, ...] = ()) -> Asked:
        """Note a call."""
        asked = Asked(what, by_ms, bodies)
        self._all.append(asked)
        self._open.append(asked)
        return asked

    def _take(self, asked: Asked) -> None:
        if asked.call is None or asked.call.op != "receive" or asked.waiter.cancelled():
            return
        if asked.waiter.exception() is None:
            delivery = asked.waiter.result()
            assert isinstance(delivery, Delivery)
            if self._random.random() < 0.1:  # it goes in the turn in which its answer came
                self._machine.calls.gave_up(asked.call)
            else:
                self._world.hands.take(delivery.messages)

    # ---- publishing ----

    def publish(self) -> None:
        """One message, for one caller."""
        key, delay_ms = self._random.choice((b"", b"", b"k", b"l")), 0
        if self._random.random() < 0.1:
            delay_ms = self._random.choice((1, 500))
        body, encoding = self._body(), self._random.choice((0, 0, 0, 1))
        group = self._group(self._where(), len(body) + len(key) + MESSAGE_RESERVE, 1)
        asked = self.wait("publish", group.deadline_ms, (body,))
        asked.terms = key, encoding, delay_ms
        if group.plain and not (key or encoding or delay_ms):
            group.waiters.append(asked.waiter)
            group.blob.append(body)
        else:
            group.add(asked.waiter, b"", body, encoding, key, delay_ms)

    def publish_many(self) -> None:
        """Some messages, for one caller."""
        bodies = tuple(self._body() for _ in range(self._random.choice((2, 5))))
        size = sum(map(len, bodies)) + len(bodies) * MESSAGE_RESERVE
        group = self._group(self._where(), size, len(bodies))
        asked = self.wait("publish_many", group.deadline_ms, bodies)
        group.add_many(asked.waiter, b"", bodies, [0] * len(bodies), b"", 0)

    def route(self) -> None:
        """A message of a few callers each, to an exchange: to one queue, to both, or to none."""
        timeout_ms, routing_key = self._random.choice((50, 500, 5_000)), self._random.choice(KEYS)
        terms = timeout_ms / 1_000, None, None, self._random.choice((0, 0, 0, 5)), None
        where = route_place("e", routing_key, (), 0, terms)
        outbox = self._machine.session.outbox
        for _ in range(self._random.choice((1, 2, 4))):
            key, body = self._random.choice((b"", b"", b"k")), self._body()
            group = outbox.open.get(where)
            if group is None or not group.takes(1, len(body) + MESSAGE_RESERVE, outbox.group_bytes):
                group = self._machine.publishes.open_group(where, self._world.now, RouteGroup)
            asked = self.wait("route", group.deadline_ms, (body,))
            asked.terms = key, 0, 0
            group.add(asked.waiter, b"", body, 0, key, 0)

    def _where(self) -> Key:
        timeout_ms = self._random.choice((50, 500, 5_000))
        queue = self._random.choice(QUEUES)
        return (
            (queue, timeout_ms, 3, 700, 0, "", 0, 0)
            if self._random.random() < 0.1
            else (queue, timeout_ms)
        )

    def _group(self, where: Key, cost: int, count: int) -> PublishGroup:
        outbox = self._machine.session.outbox
        group = outbox.open.get(where)
        if group is not None and not group.takes(count, cost, outbox.group_bytes):
            outbox.close(where)
            group = None
        return group or self._machine.open_group(where, self._world.now)

    def _body(self) -> bytes:
        self._count += 1
        return b"%d:" % self._count + bytes(self._random.choice((0, 0, 40, 3_000)))

    # ---- requests ----

    def ask(self) -> None:
        """Something that is answered once."""
        self.request(
            *self._random.choice((("queue_show", {"queue": "a"}), ("stats", {"queue": ""})))
        )

    def receive(self) -> None:
        """Messages, begun; maybe not at once."""
        wait_ms = self._random.choice((0, 0, 20, 400))
        count = self._random.choice((1, 3, 10))
        fields = {"queue": self._random.choice(QUEUES), "count": count, "wait_ms": wait_ms}
        self.request("receive", fields, wait_ms + self._random.choice((30, 300, 3_000)))

    def request(self, op: str, fields: dict[str, Any], within_ms: int = 0) -> Asked:
        """Ask, under a deadline."""
        within_ms = within_ms or self._random.choice((30, 300, 3_000))
        asked = self.wait(op, self._world.now + within_ms)
        asked.call = self._machine.calls.ask(asked.waiter, op, fields, asked.by_ms)
        return asked

    # ---- going ----

    def go(self) -> None:
        """A caller goes, before or behind its answer."""
        if self._open:
            asked = self._random.choice(self._open[-8:])
            if asked.bodies:
                groups = self._machine.session.outbox.groups
                asked.withdrawn = any(_has(group, asked.waiter) for group in groups)
            asked.waiter.cancel()
            asked.gone = True
            if asked.call is not None:
                self._machine.calls.gave_up(asked.call)

    # ---- the end ----

    def check(self, server: CoreServer) -> None:
        """Each confirmed message is stored once, under its id; one that was refused or taken back is not."""
        stored, copies = server.stored(), server.copies()
        twice = {body: ids for body, ids in stored.items() if len(ids) > 1}
        assert not twice, f"stored twice: {twice}"
        for asked in self._all:
            found = [stored.get(body, [None])[0] for body in asked.bodies]
            places = [None if each is None else each[0] for each in found]
            wrong = [each for each in found if each is not None and each[1:] != asked.terms]
            assert not wrong, f"{asked.terms} became {wrong}"
            if asked.waiter.cancelled():
                assert not (asked.withdrawn and any(places)), "what was taken back is stored"
                continue
            error = asked.waiter.exception() if asked.bodies else None
            if error is None and asked.what == "route":
                routed = asked.waiter.result()
                assert copies[asked.bodies[0]] == set(routed.ids.values())
            elif error is None and asked.bodies:
                assert places == _ids(asked.waiter.result()), asked.what
            elif isinstance(error, MinibrokerError):
                assert not (error.code in NOT_STORED and any(places)), error.code


def _has(group: PublishGroup, waiter: Waiter) -> bool:
    return any(waiter is (each[0] if type(each) is tuple else each) for each in group.waiters)


def _ids(confirm: Any) -> list[Id]:
    if isinstance(confirm, Confirm):
        return [(confirm.origin, confirm.sequence)]
    assert isinstance(confirm, ConfirmRun)
    return [(confirm.origin, confirm.first + at) for at in range(confirm.messages)]
