"""A comparison with one side: both servers run, the works are measured in pairs, A B A B.

The server whose turn it is not has nothing to do, and both saw the same minute of the machine. Between the
pairs stand slices of both gauges (benchmarks/gauges.py).
"""

from __future__ import annotations

import importlib.metadata
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gauges import LoopGauge, SyncGauge, record_bytes
from benchmarks.peers.backlog import Backlog
from benchmarks.peers.contestant import Contestant, Sample
from benchmarks.peers.ratios import compare, shortened
from benchmarks.peers.servers import SERVERS, MinibrokerServer
from benchmarks.peers.sides import Side, how
from benchmarks.peers.works import BODY_BYTES, WORKS, Work

SYNCS_A_SLICE = 100
LOOP_SLICE_S = 0.05
MOST_RATE = 1_000.0  # of the open loop; far more would measure the Python of the client

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    pairs: int
    seconds: float  # of a repetition
    backlog: int  # messages that wait for the memory and restart works
    fill_seconds: float  # a slow peer gets as many of them as it takes in this time


class Match:
    """Measures the works against one side."""

    def __init__(self, stack: ExitStack, side: Side, folder: Path, plan: Plan) -> None:
        self._stack, self._side, self._folder, self._plan = stack, side, folder, plan
        folder.mkdir(parents=True)
        # Its file is made once: writing 64 MiB before each work would keep the disk busy during it.
        self._sync = SyncGauge(folder, record_bytes(1, BODY_BYTES))
        stack.callback(self._sync.close)
        self._both: tuple[Contestant, Contestant] | None = None
        self._capacities: dict[tuple[str, str], float] = {}
        self._backlog: Backlog | None = None

    def row(self, work: Work) -> Row:
        """Measure one work and return its row."""
        sync, loop = self._sync, LoopGauge()
        sync.samples.clear()
        counts, samples = self._measure(work, sync, loop)
        compared = compare([(ours.value, theirs.value) for ours, theirs in samples], work.unit)
        return {
            "work": work.name,
            "title": work.title,
            "against": self._side.name,
            "durability": self._side.level,
            "their_durability": self._side.durability,
            "how": how(self._side, work),
            "tuned": self._side.peer.tuned,
            "unit": work.unit,
            **asdict(compared),
            **beside(work, samples),
            "prefetch": work.prefetch_shown,
            "window": work.window,
            "batch": work.batch,
            "frame": work.frame,
            "body": f"bytes, {work.body_bytes}",
            "messages": list(counts),
            "versions": self._versions(),
            "sync_p50_us": round(sync.p50_us, 1),
            "loop_per_second": round(loop.per_second),
        }

    def _measure(
        self, work: Work, sync: SyncGauge, loop: LoopGauge
    ) -> tuple[tuple[int, int], list[tuple[Sample, Sample]]]:
        gauge(sync, loop)
        if work.do in {"memory", "restart"}:
            found = self._waiting().measure(work, self._plan.pairs)
            gauge(sync, loop)
            return found
        ours, theirs = self._contestants()
        rate = self._open_loop_rate() if work.do == "latency" else 0.0
        if rate:
            counts = (max(100, int(rate * self._plan.seconds * 2)),) * 2
        else:
            counts = (self._calibrated(ours, work), self._calibrated(theirs, work))
        samples = []
        for _ in range(self._plan.pairs):
            samples.append(
                (ours.repeat(work, counts[0], rate), theirs.repeat(work, counts[1], rate))
            )
            gauge(sync, loop)
        return (counts[0], counts[1]), samples

    def recover(self) -> None:
        """Give up the clients of a work that failed, and leave an empty queue to the next one."""
        for contestant in self._both or ():
            contestant.drop_clients()
            contestant.order("purge")

    def _contestants(self) -> tuple[Contestant, Contestant]:
        if self._both is None:
            side, peer = self._side, self._side.peer.name
            ours = MinibrokerServer(self._folder / "ours", "")
            theirs = SERVERS[peer](self._folder / "theirs", side.option)
            self._both = (
                Contestant(self._stack, "minibroker", ours, side.level),
                Contestant(self._stack, peer, theirs, side.option),
            )
            for contestant in self._both:
                contestant.warm_up()
        return self._both

    def _waiting(self) -> Backlog:
        if self._backlog is None:
            self._backlog = Backlog(
                self._stack, self._side, self._folder, self._plan.backlog, self._plan.fill_seconds
            )
        return self._backlog

    def _calibrated(self, contestant: Contestant, work: Work) -> int:
        count = contestant.calibrate(work, self._plan.seconds)
        self._capacities[contestant.peer, work.name] = count / self._plan.seconds
        return count

    def _open_loop_rate(self) -> float:
        """Return half of what the slower side can publish and consume in one process, within bounds."""
        return min(MOST_RATE, *(self._capacity(each) / 2 for each in self._contestants()))

    def _capacity(self, contestant: Contestant) -> float:
        seconds = 0.0
        for work in WORKS:
            if work.name in {"publish-one", "consume-32"}:
                if (contestant.peer, work.name) not in self._capacities:
                    self._calibrated(contestant, work)
                seconds += 1 / self._capacities[contestant.peer, work.name]
        return 1 / seconds

    def _versions(self) -> dict[str, str]:
        theirs = (self._both or self._waiting().contestants)[1]
        distribution = self._side.peer.distribution
        return {
            "minibroker": importlib.metadata.version("minibroker"),
            self._side.peer.name: theirs.server.version(),
            distribution if distribution != theirs.peer else f"{theirs.peer} client": (
                importlib.metadata.version(distribution)
            ),
        }


def gauge(sync: SyncGauge, loop: LoopGauge) -> None:
    """Take a slice of both gauges."""
    sync.measure(SYNCS_A_SLICE)
    loop.measure(LOOP_SLICE_S)


def beside(work: Work, samples: list[tuple[Sample, Sample]]) -> Row:
    """Return the fields that only some works have: p99, phases, counts of what was there."""
    made: Row = {}
    for index, whose in enumerate(("our", "their")):
        for name in samples[0][index].beside:
            made[f"{whose}_{name}"] = shortened(
                median(pair[index].beside[name] for pair in samples)
            )
    if work.do in {"one", "latency"}:
        ratios = [ours.value / theirs.value for ours, theirs in samples]
        made["p50_ours_over_theirs"] = shortened(median(ratios))
    return made
