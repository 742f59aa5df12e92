"""The audit of the faults of a cluster: as that of kills, and what a client may miss that was not there in time.

Two handlings of one message need a reason: a nack; or that whoever had it could not be asked. Its way to the
brokers was cut (`cut_off`), or it came back to a new leader later than that one waits for it (`late`). Both are as
promised, and counted. Without one of these reasons the message was handed to two while a lease held: a fault.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from books import Books, Id, Outcome
from worker_ledger import read_connection

from minibroker.contract import limits

S: Final = 1_000_000_000  # ns
# A start waits so long for those it knows; the line that it listens may be read a moment later.
WAITED_NS: Final = limits.RESUME_WAIT_MS * 1_000_000 - S // 2
UNHEARD_NS: Final = 5 * S  # that a cut may be over, and its client not have noticed
SEEN_NS: Final = S  # a line of a broker that leads may be read after its first confirm
Span = tuple[int, int]


class ClusterBooks(Books):
    """The ledgers of a campaign on a cluster; times are monotonic, in ns."""

    def __init__(
        self,
        publishers: Sequence[Path],
        consumers: Sequence[Path],
        faults_ns: Sequence[int],
        starts_ns: Sequence[int],
        cuts: Mapping[int, Sequence[Span]],
    ) -> None:
        """`starts_ns`: when brokers began to lead; `cuts`: when the way of a consumer, by its place, was cut."""
        super().__init__(publishers, consumers, faults_ns)
        self._starts_ns = sorted(starts_ns)
        self._cuts = cuts
        self._backs = [
            [at for verb, at, _ in read_connection(path) if verb == "back"] for path in consumers
        ]
        self._last: dict[Id, tuple[int, int]] = {}  # when it was begun, and by whom
        self._reasons: Counter[Id] = Counter()  # nacks that were taken into account
        self.late = self.cut_off = 0

    def audit(self) -> Outcome:
        """As ever; what is excused is in `late` and `cut_off`."""
        outcome = super().audit()
        outcome.verb = "cluster-faults"
        return outcome

    def _enter(self, at: int, verb: str, id: Id, token: int, attempt: int, who: int) -> None:
        if verb == "lost" and self._excuse(self._begun[id, token], who, at):
            self._outcome.refused += 1
        else:
            super()._enter(at, verb, id, token, attempt, who)

    def _begin(self, at: int, id: Id, token: int, attempt: int, who: int) -> None:
        before = self._last.get(id)
        self._last[id] = at, who
        if before is not None:
            if self._nacked[id] > self._reasons[id]:
                self._reasons[id] += 1
            elif excuse := self._excuse(*before, at):
                setattr(self, excuse, getattr(self, excuse) + 1)
                self._nacked[id] += 1
                self._reasons[id] += 1
            else:
                self._broken["handed out twice"].append((id, before, (at, who)))
        super()._begin(at, id, token, attempt, who)

    def _excuse(self, begun_ns: int, who: int, at: int) -> str:
        """Return why whoever had it since `begun_ns` could not be asked before `at`; empty: no reason."""
        for since_ns, until_ns in self._cuts.get(who, ()):
            if since_ns < at and until_ns > begun_ns - UNHEARD_NS:
                return "cut_off"
        for start_ns in self._starts_ns:
            if begun_ns < start_ns + WAITED_NS < at:
                backs = self._backs[who]
                index = bisect_right(backs, start_ns)
                if index == len(backs) or backs[index] > start_ns + WAITED_NS:
                    return "late"
        return ""


def by_deposed(
    claims: Sequence[tuple[int, str]], calls: Mapping[str, Sequence[Span]]
) -> list[tuple[str, Span]]:
    """Return what a broker confirmed although another one led from before the call on until the confirm.

    `claims`: when (ns) which broker was seen to have claimed the log; `calls` through one broker alone, by its
    name: when each was made, and when it was confirmed.
    """
    ordered = sorted(claims)
    times = [at for at, _ in ordered]
    found = []
    for name, spans in calls.items():
        for called, at in spans:
            first = (
                bisect_right(times, called) - 1
            )  # who led when it was called, and those until the confirm
            led = {who for _, who in ordered[max(first, 0) : bisect_right(times, at + SEEN_NS)]}
            if name not in led:
                found.append((name, (called, at)))
    return found


class Probes:
    """The ledger of a prober, read as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self._spans: dict[str, list[Span]] = {"confirmed": [], "delivered": []}

    def goes_on(self, fault_ns: int) -> bool:
        """Whether something was published after a fault, confirmed and delivered."""
        self._read_on()
        return all(any(called > fault_ns for called, _ in spans) for spans in self._spans.values())

    def longest_s(self, fault_ns: int) -> tuple[float, float]:
        """Return for how long nothing was confirmed, and nothing delivered, since a fault."""
        self._read_on()
        return self._longest_s("confirmed", fault_ns), self._longest_s("delivered", fault_ns)

    def _longest_s(self, verb: str, fault_ns: int) -> float:
        times = [fault_ns, *(at for _, at in self._spans[verb] if at > fault_ns)]
        return max(later - at for at, later in pairwise(times)) / S

    def forget(self) -> None:
        """Keep nothing of what was read: the next fault comes later."""
        for spans in self._spans.values():
            spans.clear()

    def _read_on(self) -> None:
        with self._path.open() as file:
            file.seek(self._read_bytes)
            text = file.read()
        whole = text[: text.rfind("\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.splitlines():
            verb, at, called = line.split()
            self._spans[verb].append((int(called), int(at)))
