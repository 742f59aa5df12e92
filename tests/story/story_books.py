"""The books of the story: what was answered, what was done, and what was running when somebody was killed.

A kill is a reason for a second run of a message until the end of the first one is known to be safe, and no longer.
When that was is no matter of a clock: half of the messages say so themselves (`app/work.py`), and what its worker
acked before one of these in the same queue is in the log before it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from shoppers import Answer

EPOCH_BITS = 40  # of a token, above which it says in which life of the broker it was handed out


@dataclass(frozen=True, slots=True)
class Kill:
    """A SIGKILL at a monotonic time, of these processes; None: of the broker, in this life of it."""

    time_ns: int
    pids: frozenset[int] | None
    life: int = 0


@dataclass(slots=True)
class Run:
    """One time that a handler was called: from `begun_ns` to `done_ns`, if it came to its end.

    Then the worker learns of it, at `told_ns`, and acks it; from `safe_ns` on that is known to be in the log.
    """

    token: int
    attempt: int
    pid: int
    begun_ns: int
    done_ns: int | None = None
    worker: int | None = None
    told_ns: int | None = None
    safe_ns: int | None = None

    def was_hit(self, kill: Kill) -> bool:
        """Return whether its end may have got lost by the kill."""
        if kill.pids is None:  # what that broker had handed out may begin a while after it
            return self.token >> EPOCH_BITS <= kill.life and _is_later(self.safe_ns, kill)
        if self.pid not in kill.pids or self.begun_ns > kill.time_ns:
            return False
        only_its_handler = self.worker is not None and self.worker not in kill.pids
        return _is_later(self.told_ns if only_its_handler else self.safe_ns, kill)


def _is_later(time_ns: int | None, kill: Kill) -> bool:
    return time_ns is None or time_ns > kill.time_ns


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
    acked: dict[tuple[int, str], list[Run]] = defaultdict(list)  # by worker and queue, in order
    for line in ledger.read_text().splitlines():
        verb, time_ns, queue, id, token, attempt, pid = line.split()
        its = runs[f"{queue} {id}"]
        if verb == "begun":
            its.append(Run(int(token), int(attempt), int(pid), int(time_ns)))
            continue
        (run,) = [run for run in its if run.token == int(token)]
        if verb == "done":
            run.done_ns = int(time_ns)
        elif verb == "told":
            run.worker, run.told_ns = int(pid), int(time_ns)
            acked[run.worker, queue].append(run)
        elif verb == "safe":
            run.safe_ns = int(time_ns)
        else:
            outcome.faults.append(f"published before its commit: {queue} {id}")
    for order in acked.values():
        for before, run in pairwise(reversed(order)):
            times_ns = [each.safe_ns for each in (before, run) if each.safe_ns is not None]
            run.safe_ns = min(times_ns, default=None)
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
