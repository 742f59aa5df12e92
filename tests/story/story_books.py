"""The books of the story: what was answered, what was done, and what was running when somebody was killed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from shoppers import Answer

MOMENT_NS = 100_000_000  # the ack of what ended before a kill may not have left; what had left may yet begin


@dataclass(frozen=True, slots=True)
class Kill:
    """A SIGKILL at a monotonic time, of these processes; None: of the broker, which meets all that runs."""

    time_ns: int
    pids: frozenset[int] | None


@dataclass(slots=True)
class Run:
    """One time that a handler was called: from `begun_ns` to `done_ns`, if it came to its end."""

    token: int
    attempt: int
    pid: int
    begun_ns: int
    done_ns: int | None = None

    def was_hit(self, kill: Kill) -> bool:
        """Return whether it ran at the kill, or had ended or was about to begin."""
        ran = self.done_ns is None or self.done_ns > kill.time_ns - MOMENT_NS
        return self.begun_ns <= kill.time_ns + MOMENT_NS and ran and self.is_of(kill)

    def is_of(self, kill: Kill) -> bool:
        """Return whether the kill was of the broker, or of the process of this run."""
        return kill.pids is None or self.pid in kill.pids


@dataclass(slots=True)
class Outcome:
    """What a story came to; printed in one line."""

    requests: int = 0
    messages: int = 0
    lost: int = 0
    duplicates: int = 0
    running_at_kills: int = 0
    kills: int = 0
    slowest_request_s: float = 0.0
    slowest_stop_s: float = 0.0
    failed: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the line that is printed."""
        return (
            f"answered={self.requests} failed={len(self.failed)} messages={self.messages} lost={self.lost} "
            f"duplicates={self.duplicates} running_at_kills={self.running_at_kills} kills={self.kills} "
            f"slowest_request_s={self.slowest_request_s:.1f} slowest_stop_s={self.slowest_stop_s:.1f} "
            f"({', '.join(self.notes)})"
        )


def audited(ledger: Path, kills: list[Kill], answers: list[Answer]) -> Outcome:
    """Return the books: lost, done twice without a reason, charged without one, published before its commit."""
    outcome = Outcome(requests=len(answers), kills=len(kills))
    outcome.slowest_request_s = max((each.seconds for each in answers), default=0.0)
    runs = _read(ledger, outcome)
    done = {name for name, its in runs.items() if any(run.done_ns is not None for run in its)}
    lost = {f"{each.queue} {each.id}" for each in answers} - done
    outcome.messages, outcome.lost = len(runs), len(lost)
    if lost:
        outcome.faults.append(f"answered and never done: {sorted(lost)[:10]}")
    for kill in kills:
        outcome.running_at_kills += sum(run.was_hit(kill) for its in runs.values() for run in its)
    for name, its in runs.items():
        _audit(name, its, kills, outcome)
    return outcome


def _read(ledger: Path, outcome: Outcome) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = defaultdict(list)
    for line in ledger.read_text().splitlines():
        verb, time_ns, queue, id, token, attempt, pid = line.split()
        its = runs[f"{queue} {id}"]
        if verb == "begun":
            its.append(Run(int(token), int(attempt), int(pid), int(time_ns)))
        elif verb == "done":
            (run,) = [run for run in its if run.token == int(token)]
            run.done_ns = int(time_ns)
        else:
            outcome.faults.append(f"published before its commit: {queue} {id}")
    return runs


def _audit(name: str, its: list[Run], kills: list[Kill], outcome: Outcome) -> None:
    """Look at all runs of one message, oldest first."""
    outcome.duplicates += len(its) - 1
    deaths = 0
    for before, run in pairwise(its):
        hits = [kill for kill in kills if before.was_hit(kill)]
        deaths += any(kill.pids is not None for kill in hits)
        if not hits:
            outcome.faults.append(f"done again without a reason: {name}: {before}, {run}")
        if run.token <= before.token:
            outcome.faults.append(f"a token that did not grow: {name}: {before}, {run}")
        if run.attempt > 1 + deaths:
            outcome.faults.append(f"charged for no death of a worker: {name}: {its}")
