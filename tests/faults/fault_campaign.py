"""Every system call of a short workload fails once, or kills the broker once: `make faults`.

    BUDGET=1800 SEED=7 make faults
    SCENARIO=cold make faults           one of them alone; JOBS=1 one run at a time

Six scenarios: a first start in an empty directory with the whole workload; the same where writes are short; the
same where the file system knows no synced writes; a start on what a kill in the middle of a batch left; a start on
what a fail-stop left; a start with messages that are not in memory, which are read back and copied. The plan has
every call, action and n; kinds take turns, so that a short budget sees each.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from time import monotonic

from fault_client import FaultClient
from fault_runs import Run, Scenario, Verdict
from saboteur import ACTIONS, EIO, KILL, SYNCS, WRITES, Fault, find_strace

HALVING = (sys.executable, str(Path(__file__).with_name("halving_broker.py")))
NO_FLAG = "pwritev2:error=EOPNOTSUPP"
# Synced writes that may be hit, of one thread. Whether the loop makes one or the thread of the log is a matter of
# how quick the disk was before: at least half of all are made by one of them, and not more for certain. Of the
# halving broker every second one ends a batch.
TORN_TRIES = (*range(90, 100), *range(40, 50))
FAILED_TRIES = (50, 25, 12, 6)


@dataclass(slots=True)
class Figures:
    """What a campaign came to; `str` is its last line."""

    planned: int = 0
    calls: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    confirmed: int = 0
    slowest_stop_ms: int = 0
    lost: int = 0
    violations: list[str] = field(default_factory=list)

    def add(self, what: str, verdict: Verdict) -> None:
        """Count one run."""
        self.outcomes[verdict.outcome.partition(":")[0]] += 1
        self.confirmed += verdict.confirmed
        self.slowest_stop_ms = max(self.slowest_stop_ms, verdict.stop_ms)
        self.lost += sum("LOST" in fault for fault in verdict.faults)
        self.violations += [f"{what}: {fault}" for fault in verdict.faults]

    def __str__(self) -> str:
        outcomes = self.outcomes
        return (
            f"faults: runs={outcomes.total()} planned={self.planned} calls={self.calls} "
            f"failed_stops={outcomes['stopped']} kills={outcomes['killed']} "
            f"went_on={outcomes['went on']} missed={outcomes['missed']} "
            f"slowest_stop_ms={self.slowest_stop_ms} confirmed={self.confirmed} lost={self.lost} "
            f"violations={len(self.violations)}"
        )


class FaultCampaign:
    """The scenarios of one seed, in a directory of their own."""

    def __init__(self, directory: Path, seed: int, only: str = "") -> None:
        self._directory = directory
        self.only = only  # one fault, as it is printed
        self._random = Random(seed)

    def scenarios(self) -> list[Scenario]:
        """Return all of them."""
        fresh = fresh_scenario()
        kills = Scenario("halved", FaultClient.run_all, program=HALVING, wanted=_kills_writes)
        two = Scenario("two-calls", FaultClient.run_all, always=(NO_FLAG,), wanted=_hits_data)
        return [fresh, self.torn(kills), self.failed(fresh), kills, two, self.cold()]

    def torn(self, halved: Scenario) -> Scenario:
        """Return a start on what a kill between the two halves of a batch left."""
        for when in TORN_TRIES:
            run = Run(self._directory / "torn", halved, Fault("pwritev2", KILL, when))
            run.live()
            if run.torn_bytes():
                return Scenario("torn", FaultClient.run_some, run.data_dir, run.ledger)
        raise AssertionError("no kill fell between the halves of a batch")

    def failed(self, fresh: Scenario) -> Scenario:
        """Return a start on what a failed write left."""
        for when in FAILED_TRIES:
            run = Run(self._directory / "failed", fresh, Fault("pwritev2", EIO, when))
            run.live()
            if (run.data_dir / "failed").exists():
                return Scenario("failed", FaultClient.run_some, run.data_dir, run.ledger)
        raise AssertionError("no synced write failed behind the start")

    def cold(self) -> Scenario:
        """Return a start on what a clean stop left, most of it in segments with a side index."""
        run = Run(self._directory / "cold", Scenario("pile", FaultClient.pile_up), None)
        code, _, _ = run.live()
        assert code == 0
        assert [*run.data_dir.glob("segment-*.index")]
        return Scenario("cold", FaultClient.run_back, run.data_dir, run.ledger)

    def plan(self, scenarios: list[Scenario], figures: Figures) -> list[tuple[Scenario, Fault]]:
        """Count the calls of each scenario; return every fault that can be in it, kinds in turn."""
        kinds: dict[tuple[str, str, str], list[tuple[Scenario, Fault]]] = defaultdict(list)
        for scenario in scenarios:
            counts = Run(self._directory / "count", scenario, None).count()
            figures.calls += counts.total()
            for call, action in ACTIONS:
                faults = [Fault(call, action, 1 + n) for n in range(counts[call])]
                kinds[scenario.name, call, action] += [
                    (scenario, fault) for fault in faults if scenario.wanted(fault)
                ]
        for each in kinds.values():
            self._random.shuffle(each)
        plan = list(_in_turns([each for each in kinds.values() if each], self._random))
        figures.planned = len(plan)
        return [each for each in plan if self.only in ("", str(each[1]))]

    def run(self, scenarios: list[Scenario], budget_s: float, jobs: int = 1) -> Figures:
        """Run the plan until it is done, or time is up and some fault had an effect: many calls fail unnoticed.

        Time counts from when the calls are counted. `jobs` runs go on at a time.
        """
        figures = Figures()
        plan = self.plan(scenarios, figures)
        end_s = monotonic() + budget_s

        def judge(number: int) -> Verdict | None:
            if monotonic() > end_s and figures.outcomes.keys() & {"stopped", "killed"}:
                return None
            return Run(self._directory / f"run-{number}", *plan[number]).judge()

        with ThreadPoolExecutor(jobs) as pool:
            for number, verdict in enumerate(pool.map(judge, range(len(plan)))):
                if verdict is None:
                    continue
                scenario, fault = plan[number]
                figures.add(f"{scenario.name} {fault} (run-{number})", verdict)
                if not verdict.faults:
                    shutil.rmtree(self._directory / f"run-{number}")
        return figures


def fresh_scenario() -> Scenario:
    """Return the first start in an empty directory, with the whole workload."""
    return Scenario("fresh", FaultClient.run_all)


def _kills_writes(fault: Fault) -> bool:
    return fault.call in WRITES and fault.action == KILL


def _hits_data(fault: Fault) -> bool:
    return fault.call in ("pwrite64", *SYNCS)


def _in_turns(
    kinds: list[list[tuple[Scenario, Fault]]], random: Random
) -> Iterator[tuple[Scenario, Fault]]:
    while kinds:
        random.shuffle(kinds)
        for kind in kinds:
            yield kind.pop()
        kinds = [kind for kind in kinds if kind]


def main() -> None:
    """Run one campaign as the environment says, and end in one line."""
    seed = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
    budget_s = float(os.environ.get("BUDGET") or 1_800)
    print(f"SEED={seed} BUDGET={budget_s:.0f}", flush=True)
    try:
        find_strace()
    except FileNotFoundError as error:
        sys.exit(str(error))
    directory = Path(tempfile.mkdtemp(prefix="minibroker-faults-"))
    campaign = FaultCampaign(directory, seed, os.environ.get("FAULT") or "")
    only, jobs = os.environ.get("SCENARIO"), int(os.environ.get("JOBS") or os.cpu_count() or 1)
    scenarios = [each for each in campaign.scenarios() if only in (None, "", each.name)]
    figures = campaign.run(scenarios, budget_s, jobs)
    for violation in figures.violations:
        print(violation)
    if figures.violations:
        print(f"traces and data are kept in {directory}; again: SEED={seed} make faults")
        print("one fault alone: SCENARIO=fresh FAULT=fdatasync:error=EIO:when=9 make faults")
    else:
        shutil.rmtree(directory)
    print(figures)
    sys.exit(bool(figures.violations))


if __name__ == "__main__":
    main()
