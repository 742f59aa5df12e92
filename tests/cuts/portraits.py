"""What a broker has after a start: every message with its body, state and attempts, and the order of delivery.

Two starts from the same files, one of which reads side indexes, must give equal portraits. What left memory is
read back from the files first, so the bodies in a portrait are those that would be delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from disk_world import StraightLog
from harness import START_UNIX_MS, World

from minibrokerd.bodies.shelves import stands
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.effects import ReadBack
from minibrokerd.engine.indexer import Indexer
from minibrokerd.log.seam import Batch, Digested, Record

Id = tuple[int, int]
LATER_MS = 5_000  # what is delayed is handed out by then
MOST = 1_000


class Delivery(NamedTuple):
    """A message as a consumer got it."""

    id: Id
    attempt: int
    marked: bool
    key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Portrait:
    """The content of a broker: `queues` are settings and reservations, `outcomes` what resent frames are told.

    `described` is what peek says of each message, with the body, by queue and id; `delivered` are those that were
    handed out, in their order; `damaged` counts those that were set aside.
    """

    queues: dict[str, tuple[int, int, int, dict[str, int | str]]]
    outcomes: dict[int, dict[int, tuple[object, ...]]]
    described: dict[tuple[str, Id], dict[str, Any]]
    delivered: dict[str, list[Delivery]]
    damaged: int

    @property
    def bodies(self) -> dict[Id, bytes]:
        """The body of every message."""
        return {id: said["body"] for (_, id), said in self.described.items()}


class Recovered(World):
    """A broker that was started from a log which was recovered and not started: its disk stays as it is.

    `digests` are the payloads that the engine has the log keep at a start, by segment.
    """

    def __init__(self, log: StraightLog, parts: Sequence[Batch | Digested]) -> None:
        self._log = log
        self._parts = parts
        self.digests_due: list[tuple[int, bytes]] = []
        super().__init__()

    def _start(self, *, clean: bool) -> None:
        log = self._log
        self.core = core = Core(BodyStore(log.segments.read_one), sizes=log.sizes)
        self.open, self.closed, self.held = [], [], []
        self.indexer = Indexer()
        for part in self._parts:
            core.replay(part)
            self.indexer.replayed(part)
        self.now_ms, self.epoch = log.now_ms + 1, log.epoch + 1
        next_batch = log._recovery.last_number + 2
        core.opened(self.epoch, self.now_ms, START_UNIX_MS, clean=log.clean, next_batch=next_batch)
        segments = self.indexer.segments()
        self.digests_due = [(segment, self.indexer.take(segment)) for segment in segments]

    def _read(self, asked: ReadBack) -> list[Record | None]:
        return self._log.read(*stands(asked))

    def portrait(self) -> Portrait:
        """Read everything back, look at it, and have it delivered."""
        store = self.store
        queues = {
            name: (queue.number, queue.home, queue.reserved_until, dict(queue.settings))
            for name, queue in store.queues.items()
        }
        outcomes = {id: _outcomes(session) for id, session in store.sessions.items()}
        self.thaw()
        self.check()
        client = self.hello()
        described: dict[tuple[str, Id], dict[str, Any]] = {}
        for name in queues:
            for said in client.peek(name, MOST):
                key = name, (said.pop("origin"), said.pop("sequence"))
                assert key not in described, f"{key} is there twice"
                described[key] = said
        self.wait_no_longer()
        self.advance(LATER_MS)
        delivered = {name: _deliver(client, name) for name in queues}
        self.check()
        damaged = sum(queue.group.counters["damaged"] for queue in store.queues.values())
        return Portrait(queues, outcomes, described, delivered, damaged)


def _outcomes(session: Any) -> dict[int, tuple[object, ...]]:
    return {
        sequence: (outcome.checksum, outcome.size, str(outcome.results), bytes(outcome.lost))
        for sequence, outcome in session.window.items()
    }


def _deliver(client: Any, queue: str) -> list[Delivery]:
    return [
        Delivery(each.id, each.attempt, each.marked, each.key, each.body)
        for each in client.receive_all(queue, MOST)
    ]


def difference(plain: Portrait, other: Portrait) -> str:
    """Return in which part two portraits differ first, and how; empty: they are equal."""
    for part in Portrait.__dataclass_fields__:
        one, two = getattr(plain, part), getattr(other, part)
        if one != two:
            return f"{part}: {_first_difference(one, two)}"
    return ""


def _first_difference(one: Any, two: Any) -> str:
    if not isinstance(one, dict):
        return f"{one!r:.300} is {two!r:.300}"
    keys = [key for key in {**one, **two} if one.get(key) != two.get(key)]
    key = keys[0]
    return f"{key}: {one.get(key)!r:.400} is {two.get(key)!r:.400} ({len(keys)} differ)"
