"""A stream that is as bad as a replicated one was measured to be: three servers, one leader, one seed.

Whoever leads compares an expectation with what it has *proposed*, and proposes; what is proposed is committed
a while later, or never. Answers are lost, messages are late, a leader dies or is cut off and does not know it,
a server that comes back is behind for long, and reads come from any of them. Nothing here knows time: one `tick`
is a moment, and whoever waits for an answer waits so many of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from minibrokerd.replicated.stream import (
    Acked,
    EntriesGone,
    Entry,
    Info,
    NoRoom,
    Outcome,
    Refused,
    StreamAway,
    Unknown,
)

SERVERS: Final = ("s1", "s2", "s3")
BESIDE_BYTES: Final = (
    500  # that an entry takes beside its body: subject, headers, and what the store adds
)
ANSWER_TICKS: Final = 12  # that a sender waits for an answer


@dataclass(frozen=True)
class Faults:
    """How often each thing happens: of a message, of an answer, or in a tick."""

    lost: float = 0.0  # a message never arrives
    late: float = 0.0  # it arrives when its sender has given up
    unanswered: float = 0.0  # what was stored or refused is not told
    slow: float = 0.0  # a proposal waits long for the others
    dies: float = 0.0  # the leader does, in a tick
    cut: float = 0.0  # the leader is cut off and goes on answering, in a tick
    stale: float = 0.0  # a server falls behind, in a tick
    away: float = 0.0  # a question is not answered
    full: float = 0.0  # there is no room for an append


NO_FAULTS: Final = Faults()


@dataclass
class Message:
    """One append on its way; `outcome` is what its sender is told."""

    parts: list[bytes]
    expected: int
    is_epoch: bool
    connection: int
    ticks: int  # until it arrives
    outcome: Outcome | None = None


@dataclass
class Proposal:
    """Entries that the leader has, and that are not committed yet."""

    message: Message
    entries: list[Entry]
    ticks: int


@dataclass
class SimStream:
    """The servers, and what is between them and their clients. `entries` are committed, and never change."""

    random: Random
    faults: Faults = NO_FAULTS
    entries: list[Entry] = field(default_factory=list)
    first: int = 1
    last: int = 0
    leader: str = SERVERS[0]
    jumps: int = 0  # purges beyond the end, each of which moved the numbering
    elections: int = 0
    most_bytes: int = 0  # that it holds; 0: it is never full

    def __post_init__(self) -> None:
        self.proposals: list[Proposal] = []
        self.claims: list[Entry] = []  # epoch records that were ever proposed
        self.flight: list[Message] = []
        self.has = dict.fromkeys(SERVERS, 0)  # up to where each server has what is committed
        self.behind = dict.fromkeys(SERVERS, 0)  # ticks for which a server gets nothing
        self.cut = ""  # a server that thinks that it leads
        self.cut_off: set[int] = set()  # the connections that are on its side
        self._cut_ticks = 0
        self._election_ticks = 0
        self._learning_ticks = 0  # of a new leader that refuses by a number that is too low
        self._connections = 0
        self.ears: list[Callable[[bytes], None]] = []
        self.unanswered = 0  # so many answers to come are lost, whatever the faults

    @property
    def proposed(self) -> int:
        """The last sequence that the leader has, committed or not."""
        return self.proposals[-1].entries[-1].sequence if self.proposals else self.last

    @property
    def stored_bytes(self) -> int:
        """What the entries take."""
        return sum(len(entry.body) + BESIDE_BYTES for entry in self.entries)

    def connect(
        self,
        turn: Callable[[], Awaitable[object]],
        spawn: Callable[[Coroutine[Any, Any, None]], object] | None = None,
    ) -> Connection:
        """Return a connection, whose calls wait by `turn`; `spawn` has what was begun go on beside its caller."""
        self._connections += 1
        return Connection(self, self._connections, turn, spawn)

    def copy(self) -> SimStream:
        """Return a stream with what is committed here, and without faults."""
        other = SimStream(Random(1), NO_FAULTS, list(self.entries), self.first, self.last)
        other.has = dict.fromkeys(SERVERS, self.last)
        return other

    def _chance(self, share: float) -> bool:
        return share > 0 and self.random.random() < share

    # -- a moment -----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let a moment pass: messages arrive, proposals are committed, servers catch up, or fail."""
        self._break()
        if not self.leader:
            self._election_ticks -= 1
            if self._election_ticks <= 0:
                self._elect()
        self._learning_ticks -= 1
        for message in list(self.flight):
            message.ticks -= 1
            if message.ticks <= 0:
                self.flight.remove(message)
                self._arrive(message)
        while self.leader and self.proposals and self.proposals[0].ticks <= 0:
            self._commit(self.proposals.pop(0))
        if self.proposals:
            self.proposals[0].ticks -= 1
        for server in SERVERS:
            self.behind[server] -= 1
            if self.behind[server] <= 0 and server != self.cut and self.random.random() < 0.7:
                self.has[server] = self.last
        if self.leader:
            self.has[self.leader] = self.last

    def _break(self) -> None:
        faults = self.faults
        if self.cut:
            self._cut_ticks -= 1
            if self._cut_ticks <= 0:
                self._heal()
        if self.leader and self._chance(faults.dies):
            self._lose_leader()
        elif self.leader and not self.cut and self._chance(faults.cut):
            self.cut, self._cut_ticks = self.leader, self.random.randrange(20, 120)
            self.cut_off = {
                number for number in range(1, self._connections + 1) if self._chance(0.5)
            }
            self._lose_leader()
        if self._chance(faults.stale):
            server = self.random.choice([name for name in SERVERS if name != self.leader])
            self.behind[server] = self.random.randrange(10, 80)

    def _lose_leader(self) -> None:
        self.behind[self.leader] = self.random.randrange(10, 100)  # its way back is long
        self.leader = ""
        self._election_ticks = self.random.randrange(5, 40)

    def _heal(self) -> None:
        self.behind[self.cut] = self.random.randrange(10, 80)
        self.cut, self.cut_off = "", set()

    def _elect(self) -> None:
        """Another server leads: of what was proposed, a part from the front on survives; batches do not."""
        self.elections += 1
        self.leader = self.random.choice([name for name in SERVERS if name != self.cut])
        self.behind[self.leader] = 0
        self._learning_ticks = self.random.choice((0, 0, 6))
        survivors = self.proposals[: self.random.randrange(len(self.proposals) + 1)]
        self.proposals = []
        for proposal in survivors:
            if len(proposal.entries) > 1:
                break
            self._commit(proposal, is_told=False)

    def _arrive(self, message: Message) -> None:
        if self.cut and message.connection in self.cut_off:
            return  # taken by a server that can tell nobody, and dropped when the cut heals
        if not self.leader:
            message.outcome = Unknown("no responders", is_led=False)
            return
        if self._chance(self.faults.full) or self._is_full(message):
            self._tell(message, NoRoom("maximum bytes exceeded"))
        elif self._learning_ticks > 0 and self.last:
            self._tell(message, Refused(self.random.randrange(self.last)))
        elif message.expected != self.proposed:
            self._tell(message, Refused(self.proposed))
        else:
            first = self.proposed + 1
            entries = [
                Entry(first + index, message.is_epoch, part)
                for index, part in enumerate(message.parts)
            ]
            ticks = self.random.randrange(20, 60) if self._chance(self.faults.slow) else 1
            self.proposals.append(Proposal(message, entries, ticks))
            self.claims += entries if message.is_epoch else ()

    def _is_full(self, message: Message) -> bool:
        stored = self.stored_bytes + sum(len(part) + BESIDE_BYTES for part in message.parts)
        return 0 < self.most_bytes < stored

    def _commit(self, proposal: Proposal, *, is_told: bool = True) -> None:
        self.entries += proposal.entries
        self.last = proposal.entries[-1].sequence
        if is_told:
            self._tell(proposal.message, Acked(self.last))

    def _tell(self, message: Message, outcome: Outcome) -> None:
        if self.unanswered:
            self.unanswered -= 1
        elif not self._chance(self.faults.unanswered):
            message.outcome = outcome

    # -- what is asked ------------------------------------------------------------------------------

    def send(
        self, parts: Sequence[bytes], expected: int, connection: int, *, is_epoch: bool
    ) -> Message:
        """Put an append on its way."""
        late = self._chance(self.faults.late)
        ticks = self.random.randrange(ANSWER_TICKS, 60) if late else self.random.randrange(1, 4)
        message = Message(list(parts), expected, is_epoch, connection, ticks)
        if not self._chance(self.faults.lost):
            self.flight.append(message)
        return message

    def _server_of(self, connection: int) -> str:
        if self.cut and connection in self.cut_off:
            return self.cut
        return self.random.choice(SERVERS)

    def _asked(self, connection: int) -> str:
        if self._chance(self.faults.away):
            raise StreamAway("no answer")
        return self._server_of(connection)

    def read(self, first: int, most_bytes: int, connection: int) -> list[Entry]:
        """Answer from the copy of some server."""
        has = self.has[self._asked(connection)]
        if first > has:
            return []
        if first < self.first:
            raise EntriesGone(first, self.first)
        found = [entry for entry in self.entries if first <= entry.sequence <= has]
        taken, size_bytes = 0, 0
        for entry in found:
            if taken and size_bytes + len(entry.body) > most_bytes:
                break
            taken, size_bytes = taken + 1, size_bytes + len(entry.body)
        return found[: self.random.randrange(1, taken + 1)] if taken > 1 else found[:taken]

    def info(self, connection: int) -> Info:
        """Say what some server believes; one that is cut off believes that it leads."""
        server = self._asked(connection)
        leader = self.cut if server == self.cut else self.leader
        has = self.has[server]
        behind = tuple(name for name in SERVERS if self.has[name] < self.last)
        stored = self.stored_bytes
        return Info(min(self.first, has + 1), has, stored, leader, SERVERS, behind, self.most_bytes)

    def purge(self, below: int) -> None:
        """Remove what is below; beyond the end the numbering jumps, and all is gone."""
        if below > self.proposed + 1:
            self.jumps += 1
            self.proposals = []
            self.last = below - 1
            self.has = dict.fromkeys(SERVERS, self.last)
        self.first = max(self.first, below)
        self.entries = [entry for entry in self.entries if entry.sequence >= self.first]

    def step_down(self, preferred: str) -> None:
        """Have another server lead; what was proposed is committed before."""
        while self.proposals:
            self._commit(self.proposals.pop(0))
        if self.leader:
            others = [name for name in SERVERS if name not in (self.leader, self.cut)]
            self.leader = preferred if preferred in others else self.random.choice(others)
            self.elections += 1


class Begun(Coroutine[Any, Any, None]):
    """A coroutine that is made when it is first stepped: nobody misses one whose broker died before."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._make = make
        self._made: Coroutine[Any, Any, None] | None = None

    def _coroutine(self) -> Coroutine[Any, Any, None]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def send(self, value: Any) -> Any:
        """Step it."""
        return self._coroutine().send(value)

    def throw(self, *error: Any) -> Any:
        """End it by an error."""
        return self._coroutine().throw(*error)

    def close(self) -> None:
        """End it."""
        if self._made is not None:
            self._made.close()

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait for it."""
        return self._coroutine().__await__()


class Connection:
    """One broker's connection; see `Stream`."""

    def __init__(
        self,
        stream: SimStream,
        number: int,
        turn: Callable[[], Awaitable[object]],
        spawn: Callable[[Coroutine[Any, Any, None]], object] | None,
    ) -> None:
        self.name = "simulated"
        self.beside = ""
        self.number = number
        self._stream = stream
        self._turn = turn
        self._spawn = spawn

    async def append(
        self, parts: Sequence[bytes], expected: int, *, is_epoch: bool = False
    ) -> Outcome:
        """Send, and wait for so long."""
        return await self._answer(
            self._stream.send(parts, expected, self.number, is_epoch=is_epoch)
        )

    async def _answer(self, message: Message) -> Outcome:
        for _ in range(ANSWER_TICKS):
            await self._turn()
            if message.outcome is not None:
                return message.outcome
        return Unknown("timed out")

    def begin(
        self, parts: Sequence[bytes], expected: int, told: Callable[[Outcome], object]
    ) -> None:
        """Send, and tell later."""
        message = self._stream.send(parts, expected, self.number, is_epoch=False)

        async def tell() -> None:
            told(await self._answer(message))

        assert self._spawn is not None, "who begins something says who has it go on"
        self._spawn(Begun(tell))

    async def read(self, first: int, most_bytes: int) -> list[Entry]:
        """Ask some server."""
        await self._turn()
        return self._stream.read(first, most_bytes, self.number)

    async def info(self) -> Info:
        """Ask some server."""
        await self._turn()
        return self._stream.info(self.number)

    async def purge(self, below: int) -> None:
        """Ask the leader; whether it heard that is not known when there is no answer."""
        await self._turn()
        if self._stream._chance(self._stream.faults.lost):
            raise StreamAway("no answer")
        self._stream.purge(below)
        if self._stream._chance(self._stream.faults.unanswered):
            raise StreamAway("no answer")

    async def step_down(self, preferred: str = "") -> None:
        """Ask the leader."""
        await self._turn()
        self._stream.step_down(preferred)

    async def say(self, word: bytes) -> None:
        """Tell those that listen, if nothing is lost."""
        for heard in self._stream.ears:
            if not self._stream._chance(self._stream.faults.lost):
                heard(word)

    async def hear(self, heard: Callable[[bytes], None]) -> None:
        """Listen from now on."""
        self._stream.ears.append(heard)

    @property
    def is_connected(self) -> bool:
        """It always is."""
        return True

    async def close(self) -> None:
        """Let go."""
