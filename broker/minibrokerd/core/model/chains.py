"""Messages that wait until others have ended: of whom each waits, and what those came to so far.

Such a message is DELAYED for ever, and its entry in `kept.py` says why. Each end of a predecessor is noted in the
batch of that end, as a byte of the 64 that share an entry: a set, so that an end which is told twice counts once.
When the last has ended the shell's next step lets the message go on (verbs/chaining.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from minibroker.contract.ends import Outcome
from minibroker.contract.wire import RUN, pack_runs
from minibrokerd.core.model.deliveries import Run
from minibrokerd.core.model.kept import AFTER
from minibrokerd.core.model.results import Id

if TYPE_CHECKING:
    from minibrokerd.core.model.state import Store

DONE: Final = (Outcome.DONE + 1, Outcome.ACKED + 1)  # bytes of those that ended as they should
CHUNK: Final = 64  # predecessors whose ends share an entry
WAITS: Final = 0  # in the first entry: it waits for others
WENT: Final = 1  # it went on
NAMED: Final = 3  # predecessors that `explain` names
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
        """Return for whom it waits, in words."""
        waits = [f"{id[0]}-{id[1]}" for id in self.missing()]
        more = [f"{len(waits) - NAMED} more"] if len(waits) > NAMED else []
        _, dead = self.counts()
        names = ", ".join(waits[:NAMED] + more) or "its turn"
        said = f"{self.left} of {len(self.ids)}: {names}"
        return f"{said}; {dead} did not end as done" if dead else said


class Chains:
    """All of them. `ids` are the messages whose end matters here: others wait for them, or they waited."""

    __slots__ = ("awaited", "expected", "go_on", "ids", "published", "waiting", "went")

    def __init__(self) -> None:
        self.ids: dict[Id, list[Id]] = {}
        self.waiting: dict[Id, Chain] = {}
        self.went: dict[Id, tuple[int, int]] = {}  # done and not done, until the message ends
        self.published: list[Run] = []  # by the step that is applied, so far
        # Those that what is being published comes after, and how they ended meanwhile: by an ack of the same step,
        # or to make room for it.
        self.expected: dict[Id, Outcome | None] = {}
        self.awaited = 0  # predecessors of all that wait
        # What to do when the last predecessor of a message has ended; a job that says whether it is over.
        self.go_on: Callable[[Store, Id], bool] = lambda store, id: True

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
            if not outcome:
                self.ids.setdefault(each, []).append(chain.id)

    def forget(self, chain: Chain) -> None:
        """Let a message wait no more."""
        del self.waiting[chain.id]
        self.awaited -= len(chain.ids)
        for each in chain.ids:
            followers = self.ids.get(each, [])
            if chain.id in followers:
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
    see_end(store, chain)


def ended(store: Store, id: Id, outcome: Outcome) -> None:
    """Note that a message ended: for those that wait for it, and that it waits no more itself."""
    chains = store.chains
    if id in chains.expected:
        chains.expected[id] = outcome
    for follower in chains.ids.pop(id, ()):
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
    """Note what one predecessor came to, once."""
    if chain.outcomes[at]:
        return
    chain.outcomes[at] = outcome + 1
    chain.left -= 1
    part = 1 + at // CHUNK
    _put(store, chain, part, _chunk(chain, part))
    see_end(store, chain)


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


def see_end(store: Store, chain: Chain) -> None:
    """See to it that a message goes on if all of its predecessors have ended."""
    if not chain.left:
        store.jobs.append(lambda: store.chains.go_on(store, chain.id))


def _parts(chain: Chain) -> Iterator[int]:
    return iter(range(1, 2 + (len(chain.ids) - 1) // CHUNK))


def _chunk(chain: Chain, part: int) -> bytes:
    return bytes(chain.outcomes[(part - 1) * CHUNK : part * CHUNK])


def _put(store: Store, chain: Chain, part: int, value: bytes) -> None:
    store.kept.put(store, AFTER, (*chain.id, part), (value,), logged=chain.is_logged)


def _end_parts(store: Store, chain: Chain) -> None:
    for part in _parts(chain):
        store.kept.end(store, AFTER, (*chain.id, part))
