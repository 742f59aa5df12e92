"""Messages that wait until others have ended: of whom each waits, and what those came to so far.

Such a message is DELAYED for ever, and its entry in `kept.py` says why. Each end of a predecessor is noted in the
batch of that end, as a byte of the 64 that share an entry: a set, so that an end which is told twice counts once.
`ended` notes, and `write` writes what was noted, before the record of the end. Where very many wait for what ends
in one apply, an entry says what that came to, and they are told in steps. When the last has ended a later step
lets the message go on (verbs/chaining.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from minibroker.contract.ends import Outcome
from minibroker.contract.wire import RUN, pack_runs
from minibrokerd.core.model.deliveries import Run
from minibrokerd.core.model.kept import AFTER
from minibrokerd.core.model.results import Id

if TYPE_CHECKING:
    from minibrokerd.core.model.effects import Effects
    from minibrokerd.core.model.state import Store

DONE: Final = (Outcome.DONE + 1, Outcome.ACKED + 1)  # bytes of those that ended as they should
CHUNK: Final = 64  # predecessors whose ends share an entry
WAITS: Final = 0  # in the first entry: it waits for others
WENT: Final = 1  # it went on
# The part of an entry that says what messages came to, of which not all were told.
LATER: Final = 2**32 - 1
NAMED: Final = 3  # predecessors that `explain` names
FEW: Final = 16  # that wait for one message; more are a dict, for those that leave its middle
MOST_TOLD: Final = 100  # entries that one apply writes: some ms, and 10 KB
# In memory, measured, beside its message and entry: of each that is waited for; of one that waits or went on.
AWAITED_BYTES: Final = 320
CHAIN_BYTES: Final = 1_000

Followers = list[Id] | dict[Id, None]
Late = list[tuple[Id, Followers]]
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[int, int, int, bytes]).decode


class Chain:
    """One message that waits; `outcomes` has a byte for each of `ids`: 0, or its outcome and one."""

    __slots__ = ("delay_ms", "id", "ids", "index", "is_logged", "left", "outcomes", "runs_anyway")

    def __init__(
        self, id: Id, ids: Sequence[Id], *, runs_anyway: bool, delay_ms: int, is_logged: bool
    ) -> None:
        self.id = id
        self.ids = ids
        self.index = {each: at for at, each in enumerate(ids)}
        self.runs_anyway = runs_anyway  # also when some did not end as done
        self.delay_ms = delay_ms  # from when it goes on
        self.is_logged = is_logged
        self.outcomes = bytearray(len(ids))
        self.left = len(ids)  # that have not ended

    def counts(self) -> tuple[int, int]:
        """Return how many ended as done, and how many otherwise."""
        done = sum(map(self.outcomes.count, DONE))
        return done, len(self.ids) - self.left - done

    def missing(self) -> list[Id]:
        """Return those that have not ended."""
        return [id for id, by in zip(self.ids, self.outcomes, strict=True) if not by]

    def says(self) -> str:
        """Return for whom it waits, in words: the first ones, and the last, in a chain the nearest one."""
        waits = [f"{id[0]}-{id[1]}" for id in self.missing()]
        if len(waits) > NAMED:
            waits[NAMED - 1 : -1] = [f"{len(waits) - NAMED} more"]
        _, dead = self.counts()
        names = ", ".join(waits) or "its turn"
        said = f"{self.left} of {len(self.ids)}: {names}"
        return f"{said}; {dead} did not end as done" if dead else said


class Chains:
    """All of them. `ids` are the messages whose end matters here: others wait for them, or they waited."""

    __slots__ = (
        "_effects", "_goes_on", "_told", "awaited", "due", "expected", "go_on", "ids", "late", "noted",
        "published", "telling", "waiting", "went",
    )  # fmt: skip

    def __init__(self) -> None:
        self.ids: dict[Id, Followers] = {}
        self.waiting: dict[Id, Chain] = {}
        self.went: dict[Id, tuple[int, int]] = {}  # done and not done, until the message ends
        self.published: list[Run] = []  # by the step that is applied, so far
        # Those that what is being published comes after, and how they ended meanwhile: by an ack of the same step,
        # or to make room for it.
        self.expected: dict[Id, Outcome | None] = {}
        self.awaited = 0  # predecessors of all that wait
        self.noted: dict[tuple[Chain, int], None] = {}  # parts of chains that are to be written
        self.late: dict[Outcome, Late] = {}  # what ended, and who is to be told of it in steps
        # Who is told now: the key of the entry that says so, and who is left.
        self.telling: deque[tuple[tuple[int, ...], Iterator[tuple[Chain, Id, Outcome]]]] = deque()
        self.due: deque[Id] = deque()  # to go on, as their last predecessor has ended
        # What to do with these, some at a time; it says whether none is left.
        self.go_on: Callable[[Store], bool] = lambda store: True
        self._goes_on = False
        self._effects: Effects | None = None  # of the apply in which `_told` entries were noted
        self._told = 0

    def size(self) -> int:
        """Return about how many bytes of memory they take, beside their messages and entries."""
        return AWAITED_BYTES * self.awaited + CHAIN_BYTES * (len(self.waiting) + len(self.went))

    def note(self, store: Store, chain: Chain, at: int) -> None:
        """Have the byte of one predecessor written."""
        place = chain, 1 + at // CHUNK
        if place not in self.noted:
            self.noted[place] = None
            if store.effects is not self._effects:
                self._effects, self._told = store.effects, 0
            self._told += 1

    def may_tell(self, store: Store, id: Id, followers: Followers) -> bool:
        """Whether these can be told in this apply that a message ended."""
        told = self._told if store.effects is self._effects else 0
        if told + len(followers) <= MOST_TOLD:
            return True
        return len(followers) <= FEW and all(
            chain is None or (chain, 1 + chain.index[id] // CHUNK) in self.noted
            for chain in map(self.waiting.get, followers)
        )

    def let_go_on(self, store: Store, id: Id) -> None:
        """Let a message go on in one of the next steps."""
        self.due.append(id)
        if not self._goes_on:
            self._goes_on = True
            store.jobs.append(lambda: self._go_on(store))

    def _go_on(self, store: Store) -> bool:
        is_over = self.go_on(store)
        self._goes_on = not is_over
        return is_over

    def expect(self, ids: Iterable[Id]) -> None:
        """Note how these end from now on, before anything is published that comes after them."""
        for id in ids:
            if id not in self.expected:
                self.expected[id] = None
                self.ids.setdefault(id, [])

    def expect_no_more(self) -> None:
        """What came after them is published."""
        for id in self.expected:
            if not self.ids.get(id, True) and id not in self.waiting and id not in self.went:
                del self.ids[id]
        self.expected.clear()

    def add(self, chain: Chain) -> None:
        """Let a message wait."""
        self.waiting[chain.id] = chain
        self.ids.setdefault(chain.id, [])
        self.awaited += len(chain.ids)
        for each, outcome in zip(chain.ids, chain.outcomes, strict=True):
            if outcome:
                continue
            followers = self.ids.setdefault(each, [])
            if isinstance(followers, dict):
                followers[chain.id] = None
            else:
                followers.append(chain.id)
                if len(followers) > FEW:
                    self.ids[each] = dict.fromkeys(followers)

    def forget(self, chain: Chain) -> None:
        """Let a message wait no more."""
        del self.waiting[chain.id]
        self.awaited -= len(chain.ids)
        for each in chain.ids if chain.left else ():
            followers = self.ids.get(each, [])
            if chain.id not in followers:
                continue
            if isinstance(followers, dict):
                del followers[chain.id]
            else:
                followers.remove(chain.id)
            if not followers and each not in self.waiting and each not in self.went:
                del self.ids[each]


def begin(store: Store, chain: Chain) -> None:
    """Let a message that was just published wait for its predecessors; its record stands in the same batch."""
    store.chains.add(chain)
    runs = pack_runs([(0, *each, 1) for each in chain.ids])
    _put(store, chain, 0, _pack((WAITS, int(chain.runs_anyway), chain.delay_ms, runs)))
    for part in _parts(chain):
        if any(_chunk(chain, part)):
            _put(store, chain, part, _chunk(chain, part))
    _see_end(store, chain)


def ended(store: Store, id: Id, outcome: Outcome) -> None:
    """Note that a message ended: for those that wait for it, and that it waits no more itself; `write` follows."""
    chains = store.chains
    if id in chains.expected:
        chains.expected[id] = outcome
    followers = chains.ids.pop(id, [])
    if not chains.may_tell(store, id, followers):
        chains.late.setdefault(outcome, []).append((id, followers))
        followers = []
    for follower in followers:
        chain = chains.waiting.get(follower)
        if chain is not None:
            note(store, chain, chain.index[id], outcome)
    own = chains.waiting.get(id)
    if own is not None:
        end(store, own)
    elif id in chains.went and outcome is not Outcome.DEAD:
        del chains.went[id]
        store.kept.end(store, AFTER, (*id, 0))
    elif id in chains.went:
        chains.ids[id] = []  # a redrive lets it run with what it was told


def note(store: Store, chain: Chain, at: int, outcome: Outcome) -> None:
    """Note what one predecessor came to, once; `write` follows."""
    if chain.outcomes[at]:
        return
    chain.outcomes[at] = outcome + 1
    chain.left -= 1
    store.chains.note(store, chain, at)
    _see_end(store, chain)


def write(store: Store) -> None:
    """Write what was noted since the last time: the records of the ends follow, in the same batch."""
    chains = store.chains
    for chain, part in chains.noted:
        if chains.waiting.get(chain.id) is chain:
            _put(store, chain, part, _chunk(chain, part))
    chains.noted.clear()
    for outcome, late in chains.late.items():
        key = 0, store.next_token(), LATER
        runs = pack_runs(_runs(id for id, _ in late))
        store.kept.put(store, AFTER, key, (bytes((outcome,)) + runs,))
        _tell_later(store, key, outcome, late)
    chains.late.clear()


def _runs(ids: Iterable[Id]) -> list[Run]:
    runs: list[Run] = []
    for origin, sequence in ids:
        last = runs[-1] if runs else None
        if last is not None and last[1] == origin and last[2] + last[3] == sequence:
            runs[-1] = (0, origin, last[2], last[3] + 1)
        else:
            runs.append((0, origin, sequence, 1))
    return runs


def _tell_later(store: Store, key: tuple[int, ...], outcome: Outcome, late: Late) -> None:
    """Tell those who wait for what has ended in steps; until then an entry says it."""
    chains = store.chains

    def left() -> Iterator[tuple[Chain, Id, Outcome]]:
        for id, followers in late:
            for follower in followers:
                chain = chains.waiting.get(follower)
                if chain is not None:
                    yield chain, id, outcome

    chains.telling.append((key, left()))
    if len(chains.telling) == 1:
        store.jobs.append(lambda: _tell_some(store))


def _tell_some(store: Store) -> bool:
    chains = store.chains
    for _ in range(MOST_TOLD):
        if not chains.telling:
            break
        key, left = chains.telling[0]
        found = next(left, None)
        if found is None:
            write(store)
            chains.telling.popleft()
            store.kept.end(store, AFTER, key)
        else:
            chain, id, outcome = found
            note(store, chain, chain.index[id], outcome)
    write(store)
    return not chains.telling


def went(store: Store, chain: Chain) -> None:
    """Note that a message goes on, and with which counts; they stay until it ends."""
    store.chains.forget(chain)
    _end_parts(store, chain)
    store.chains.went[chain.id] = counts = chain.counts()
    store.chains.ids.setdefault(chain.id, [])
    _put(store, chain, 0, _pack((WENT, *counts, b"")))


def end(store: Store, chain: Chain) -> None:
    """Note that a message waits no more, as it ended itself."""
    store.chains.forget(chain)
    _end_parts(store, chain)
    store.kept.end(store, AFTER, (*chain.id, 0))


def opened(store: Store) -> None:
    """End the replay: make what waits of the entries."""
    parts = {entry.key: bytes(entry.value[0]) for entry in store.kept.of(AFTER)}
    for (origin, sequence, part), value in parts.items():
        if part:
            continue
        id = int(origin), int(sequence)
        kind, first, second, runs = _unpack(value)
        if kind == WENT:
            store.chains.went[id] = first, second
            store.chains.ids.setdefault(id, [])
            continue
        ids = [each[1:3] for each in RUN.iter_unpack(runs)]
        chain = Chain(id, ids, runs_anyway=bool(first), delay_ms=second, is_logged=True)
        for number in _parts(chain):
            at = (number - 1) * CHUNK
            known = parts.get((*id, number), b"")
            chain.outcomes[at : at + len(known)] = known
        chain.left = chain.outcomes.count(0)
        store.chains.add(chain)
    for key, value in parts.items():
        if key[2] == LATER:
            ended = RUN.iter_unpack(value[1:])
            ids = [(run[1], run[2] + at) for run in ended for at in range(run[3])]
            late = [(id, store.chains.ids.pop(id, [])) for id in ids]
            _tell_later(store, tuple(map(int, key)), Outcome(value[0]), late)


def _see_end(store: Store, chain: Chain) -> None:
    if not chain.left:
        store.chains.let_go_on(store, chain.id)


def _parts(chain: Chain) -> Iterator[int]:
    return iter(range(1, 2 + (len(chain.ids) - 1) // CHUNK))


def _chunk(chain: Chain, part: int) -> bytes:
    return bytes(chain.outcomes[(part - 1) * CHUNK : part * CHUNK])


def _put(store: Store, chain: Chain, part: int, value: bytes) -> None:
    store.kept.put(store, AFTER, (*chain.id, part), (value,), logged=chain.is_logged)


def _end_parts(store: Store, chain: Chain) -> None:
    for part in _parts(chain):
        store.kept.end(store, AFTER, (*chain.id, part))
