"""Crash states and damaged files by the hundred thousand, over all processors, within a budget.

    make cuts BUDGET=600 SEED=7
    make cuts ONLY=everything:4096:7:225

Everything is divided into parts that spread evenly: a short budget has some of everything. After the last
part the next seed follows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice
from random import SystemRandom
from time import monotonic
from typing import Final

from damage import Victim, victim
from judge import Violation
from sweep import Source, Sweep, Tally, sources
from trials import Trial, trials
from workloads import WORKLOADS

PARTS: Final = 64
PROCESSES: Final = 2
SHOWN_FAULTS: Final = 20


class Damages:
    """The trials of one log at rest, closed or open."""

    def __init__(self, seed: int, *, closed: bool) -> None:
        self.closed = closed
        self._seed = seed
        self._victims: tuple[Victim, Victim] | None = None

    def trials(self, part: int, parts: int) -> Iterator[Trial]:
        """Yield one part of the trials."""
        if self._victims is None:
            stranger = victim(self._seed + 1, closed=self.closed)
            self._victims = victim(self._seed, closed=self.closed), stranger
        return trials(*self._victims, part, parts)

    def run(self, part: int, parts: int) -> Iterator[Tally]:
        """Try one part, and yield what each trial gave."""
        for trial in self.trials(part, parts):
            yield self.attempt(trial)

    def attempt(self, trial: Trial) -> Tally:
        """Try one damage."""
        tally = Tally(recoveries=1)
        setattr(tally, trial.kind, 1)
        try:
            outcome = trial.run()
            setattr(tally, outcome, 1)
        except Violation as violation:
            how = "closed" if self.closed else "open"
            tally.violated(violation, f"ONLY={how}:{self._seed}:{trial.name}")
        return tally


def pieces(seed: int) -> Iterator[Iterator[Tally]]:
    """Yield pieces of work, each an iterator over what its steps gave; without end."""
    for round_seed in count(seed):
        some = list(islice(sources(round_seed), 3 * len(WORKLOADS)))
        logs = [Damages(round_seed, closed=closed) for closed in (True, False)]
        for part in range(PARTS):
            for log in logs:
                yield log.run(part, PARTS)
            for source in some:
                yield _points(source, part)


def _points(source: Source, part: int) -> Iterator[Tally]:
    sweep = Sweep(source)
    yield from sweep.run(range(part + 1, len(sweep.recording.steps) + 1, PARTS))


def work(seed: int, index: int, end_s: float) -> Tally:
    """Do every n-th piece of work until time is up; `index` says which of the processes this is."""
    total = Tally()
    for piece in islice(pieces(seed), index, None, PROCESSES):
        for tally in piece:
            total.add(tally)
            for fault in tally.faults[:SHOWN_FAULTS]:
                print(fault, flush=True)
            if monotonic() > end_s:
                return total
    raise AssertionError("the pieces have no end")


def run_campaign(seed: int, budget_s: float) -> Tally:
    """Work for `budget_s` on all processors and return the sum."""
    total, end_s = Tally(), monotonic() + budget_s
    with ProcessPoolExecutor(PROCESSES) as pool:
        for tally in pool.map(
            work, *zip(*[(seed, i, end_s) for i in range(PROCESSES)], strict=True)
        ):
            total.add(tally)
    return total


def again(name: str) -> Tally:
    """Try one point or one damage again, by the name that a violation printed."""
    first, second, *rest = name.split(":")
    if first in WORKLOADS:
        source, step = Source(first, int(second), int(rest[0])), int(rest[1])
        (tally,) = Sweep(source).run(range(step, step + 1))
        return tally
    damages = Damages(int(second), closed=first == "closed")
    (trial,) = [each for each in damages.trials(0, 1) if each.name == ":".join(rest)]
    return damages.attempt(trial)


def main() -> None:
    """Run one campaign as the environment says, and end in one line."""
    seed = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
    budget_s = float(os.environ.get("BUDGET") or 600)
    only = os.environ.get("ONLY") or ""
    print(f"ONLY={only}" if only else f"SEED={seed} BUDGET={budget_s:.0f}", flush=True)
    tally = again(only) if only else run_campaign(seed, budget_s)
    if only:
        print(*tally.faults, sep="\n")
    print(tally)
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
