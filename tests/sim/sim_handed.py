"""What a broker began as it handed it out, to a handler that waits (protocol.md, 5.3), and what it was charged.

H1 what no handler saw goes back if a resume does not name it, or its client says so: charged to nobody, not marked
H2 what never came to a handler, and was given back by nobody, is charged once, by its lease
H3 a word that a handler waits is good for the next delivery to its connection: of one message for its consumer,
   not marked, and under no short lease
H4 a client whose connection had no trouble lets a handler see it, or gives it back

What a start knows of attempts depends on what was synced, and not how one was begun: but for what a client was
answered the laws are about one life of the broker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

from checker import Id, epoch_of

from minibroker.contract.wire import DELIVERY_RUN, MARKED, RUN
from minibroker.session.settle_frames import NOT_ALL
from minibrokerd.core.model.effects import Effects, Outgoing
from minibrokerd.core.model.inputs import Command, Frame, Resume
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.runs import read_runs

LEAST_LEASE_MS = 1_000


@dataclass(frozen=True, slots=True)
class HandOut:
    """One message of one delivery."""

    token: int
    queue: str
    attempt: int
    marked: bool


@dataclass(slots=True)
class Begun:
    """A message that was begun with its hand-out, and what is known of it since."""

    token: int
    id: Id
    session: int
    connection: int
    seen: bool = False  # by a handler
    asked: bool = False  # its client gives it back, or a resume may have done so
    back: bool = False  # for certain, in this life of the broker
    answered: bool = False  # so that it is safe


class HandedBooks:
    """Told of each step of the core, and by the clients of what became of a message.

    `when_begun` is called with the connection that a message is on its way to.
    """

    def __init__(self) -> None:
        self.violations: list[tuple[str, str]] = []
        self.when_begun: Callable[[int], None] = lambda connection: None
        self._outs: dict[Id, list[HandOut]] = defaultdict(list)
        self._begun: dict[int, Begun] = {}  # by token
        self._words: dict[int, int] = {}  # by connection, the consumer that waits
        self._unseen: dict[int, list[Begun]] = {}  # by the connection of a resume

    @property
    def count(self) -> int:
        """How many were begun with their hand-out."""
        return len(self._begun)

    @property
    def came_back(self) -> int:
        """How many of these are known to have come back unseen."""
        return sum(each.back for each in self._begun.values())

    # -- what clients know ----------------------------------------------------------------------

    def saw(self, token: int) -> None:
        """A handler has it."""
        self._begun[token].seen = True

    def asked(self, token: int) -> None:
        """Nobody waits any more, and its client gives it back."""
        self._begun[token].asked = True

    def is_back(self, token: int, epoch: int) -> None:
        """The server has said that it did, in this life of it."""
        begun = self._begun[token]
        if epoch == epoch_of(token):
            begun.back = begun.answered = True

    # -- steps of the core ----------------------------------------------------------------------

    def before(self, store: Store, command: Command) -> None:
        """A step begins."""
        if isinstance(command, Frame) and command.waits is not None:
            self._said(store, command, command.waits)
        elif isinstance(command, Resume):
            self._resumes(store, command)

    def _said(self, store: Store, frame: Frame, consumer: int) -> None:
        there = store.connections.get(frame.connection)
        if there is None:
            return
        session, sequence = there.session, frame.sequence
        is_new = sequence is None or session.answered_below <= sequence not in session.window
        if is_new:
            self._words[frame.connection] = consumer

    def _resumes(self, store: Store, command: Resume) -> None:
        session = store.sessions.get(command.session)
        named = {run[0] for run in read_runs(command.runs, len(command.runs) // RUN.size)}
        mine = {
            token: begun for token, begun in self._begun.items() if begun.session == command.session
        }
        for token, begun in mine.items():
            begun.asked = begun.asked or token not in named
        if session is None or session.blank or NOT_ALL[0] in named:
            return
        there = [token for token in mine if token in store.deliveries and token not in named]
        self._unseen[command.connection] = [
            mine[token] for token in there if epoch_of(token) == store.epoch
        ]

    def after(self, store: Store, effects: Effects) -> None:
        """A step has ended."""
        for out in effects.outgoing:
            if out.header["op"] == "welcome":
                for begun in self._unseen.pop(out.connection, ()):
                    begun.back = True
                    if begun.token in store.deliveries:
                        self._violation("H1", f"no resume names {begun.id}, and it is still begun")
            elif out.header["op"] == "deliver" and out.header["count"]:
                self._delivered(store, out)

    def _delivered(self, store: Store, out: Outgoing) -> None:
        header = out.header
        token, queue = header["token"], header["queue"]
        columns = out.columns[: header["runs"] * DELIVERY_RUN.size]
        outs = []
        for origin, first, count, attempt, flags, *_ in DELIVERY_RUN.iter_unpack(columns):
            for sequence in range(first, first + count):
                hand_out = HandOut(token, queue, attempt, bool(flags & MARKED))
                self._outs[origin, sequence].append(hand_out)
                outs.append(((origin, sequence), hand_out))
        waits = self._words.pop(out.connection, None)
        if "consumer" in header and header.get("begun"):
            id, hand_out = outs[0]
            if header["consumer"] != waits or len(outs) > 1 or hand_out.marked:
                self._violation("H3", f"{id} was begun as it was handed out, for nobody")
            elif header["lease_ms"] < LEAST_LEASE_MS:
                self._violation("H3", f"{id} was begun with a lease of {header['lease_ms']} ms")
            session = store.connections[out.connection].session
            self._begun[token] = Begun(token, id, session.id, out.connection)
            self.when_begun(out.connection)

    def _violation(self, law: str, text: str) -> None:
        self.violations.append((law, text))

    # -- the end --------------------------------------------------------------------------------

    def left_over(self, healthy: Container[int]) -> Iterator[tuple[str, str]]:
        """Yield, when all is quiet, what lies about in a client; `healthy` are the connections without trouble."""
        for begun in self._begun.values():
            if begun.connection in healthy and not (begun.seen or begun.asked):
                yield "H4", f"{begun.id} of {begun.token} was seen by no handler, nor given back"

    def judge(self, spares: Container[str]) -> Iterator[tuple[str, str]]:
        """Yield what was charged wrongly, as law and text; `spares` are queues that charge nobody now and then."""
        for token, begun in self._begun.items():
            outs = [each for each in self._outs[begun.id] if each.token >= token]
            this, *later = sorted(outs, key=lambda each: each.token)
            if not later:
                continue
            came, is_same = later[0], epoch_of(later[0].token) == epoch_of(token)
            is_there = is_same and came.queue == this.queue
            text = f"{begun.id} of {token}, for attempt {this.attempt}, was not seen, and came as {came}"
            if begun.answered or (begun.back and is_same):
                if came.attempt != this.attempt or (is_there and came.marked):
                    yield "H1", text
                continue
            is_lost = is_there and not (begun.seen or begun.asked or this.queue in spares)
            if is_lost and (came.attempt, came.marked) != (this.attempt + 1, True):
                yield "H2", text
