"""The audit of a campaign: what the ledgers of publishers and consumers say when they are laid side by side."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker_ledger import read_ledger

Id = tuple[int, int]  # origin, sequence


@dataclass(slots=True)
class Outcome:
    """What a campaign ended in; `str` is its last line."""

    kills: int = 0
    verb: str = "crash"  # or stops
    slowest_stop_s: float = 0.0
    confirmed: int = 0
    lost: int = 0  # confirmed, and never handled
    duplicates: int = 0  # handlings beyond the first of an id and those that a nack asked for
    ids_repeated: int = 0  # confirmed twice
    tokens_repeated: int = 0  # begun under a token that is not above the message's last one
    outlived: int = 0  # begun before a kill and settled after it
    refused: int = 0  # lost leases, refused settlements
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.verb}: {'kills' if self.verb == 'crash' else 'stops'}={self.kills} "
            f"confirmed={self.confirmed} lost={self.lost} "
            f"duplicates={self.duplicates} ids_repeated={self.ids_repeated} "
            f"tokens_repeated={self.tokens_repeated} outlived={self.outlived} refused={self.refused}"
            + (f" slowest_stop_s={self.slowest_stop_s:.2f}" if self.verb == "stops" else "")
        )


class Books:
    """The ledgers of a campaign."""

    def __init__(
        self, publishers: Sequence[Path], consumers: Sequence[Path], kills_ns: Sequence[int]
    ) -> None:
        self._publishers = publishers
        self._consumers = consumers
        self._kills_ns = kills_ns
        self._outcome = Outcome(kills=len(kills_ns))
        self._begun: dict[tuple[Id, int], int] = {}  # (id, token): when
        self._handled: Counter[Id] = Counter()
        self._nacked: Counter[Id] = Counter()
        self._newest: dict[Id, int] = {}  # the token of its last delivery
        self._safe: set[Id] = set()  # an ack was confirmed
        self._broken: dict[str, list[object]] = defaultdict(list)

    def audit(self) -> Outcome:
        """Compare the ledgers; each broken promise is a fault."""
        outcome = self._outcome
        for at, verb, (origin, sequence, token, attempt), who in self._consumed():
            self._enter(at, verb, (origin, sequence), token, attempt, who)
        confirmed = Counter(self._confirmed())
        outcome.confirmed = len(confirmed)
        outcome.ids_repeated = confirmed.total() - len(confirmed)
        missing = confirmed.keys() - self._handled.keys()
        outcome.lost = len(missing)
        surplus = self._handled - self._nacked - Counter(self._handled.keys())
        outcome.duplicates = surplus.total()
        self._fault("confirmed and never handled", missing)
        self._fault("confirmed twice", [id for id, count in confirmed.items() if count > 1])
        self._fault("handled again without a reason", dict(surplus))
        for what, where in self._broken.items():
            self._fault(what, where)
        return outcome

    def _fault(self, what: str, where: Collection[object]) -> None:
        if where:
            self._outcome.faults.append(f"{what}, {len(where)} times: {where!s:.500}")

    def _confirmed(self) -> Iterator[Id]:
        for path in self._publishers:
            for _, _, (origin, first, count) in read_ledger(path):
                for sequence in range(first, first + count):
                    yield origin, sequence

    def _consumed(self) -> list[tuple[int, str, tuple[int, ...], int]]:
        """Return the lines about messages in the order in which they were written; the last is whose it is."""
        lines = [
            (at, verb, numbers, who)
            for who, path in enumerate(self._consumers)
            for verb, at, numbers in read_ledger(path)
        ]
        return sorted(lines)

    def _enter(self, at: int, verb: str, id: Id, token: int, attempt: int, who: int) -> None:
        if verb == "begun":
            self._begin(at, id, token, attempt, who)
        elif verb == "lost":
            self._outcome.refused += 1
            self._broken["lost"].append((id, token))
        else:
            began = self._begun[id, token]
            self._outcome.outlived += any(began < kill < at for kill in self._kills_ns)
            if verb == "nacked":
                self._nacked[id] += 1
            elif verb == "safe":
                self._safe.add(id)

    def _begin(self, at: int, id: Id, token: int, attempt: int, who: int) -> None:
        self._handled[id] += 1
        if token <= self._newest.get(id, 0):
            self._outcome.tokens_repeated += 1
            self._broken["token not above the one before"].append((id, token))
        self._newest[id] = token
        self._begun[id, token] = at
        if id in self._safe:
            self._broken["begun after its ack was confirmed"].append((id, token))
        if attempt > 1 + self._nacked[id]:
            self._broken["charged for a death of the broker"].append((id, token, attempt))
