"""Faults of a cluster under load, out of one seed, and the books of everybody afterwards.

    make cluster-faults SEED=7 BUDGET=3600
    make cluster-faults ONLY="kill broker"       faults of this kind alone

Three servers of NATS and two brokers on this machine; publishers and consumers in processes of their own, each
with both addresses. A round waits until the cluster is whole and everybody works, does something to it (`FAULTS`),
heals that after a while, and waits until all is well again. What clients wrote into their ledgers is all that is
believed.
The last lines are for how long nothing was confirmed, and nothing delivered, by kind, and the sums.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from random import Random, SystemRandom
from statistics import median
from time import monotonic, monotonic_ns

from books import Outcome
from cluster_books import ClusterBooks, Probes, Span, by_deposed
from cluster_kinds import FAULTS, Scene
from cluster_world import Cluster, tail
from loops import LOOPS
from worker_ledger import read_ledger

from support.scripts import Script

KILLS = Path(__file__).resolve().parent.parent / "kills"
HERE = Path(__file__).resolve().parent
QUEUE = "load"
PAUSE = "0.03"  # of publishers: the machine has servers of NATS to run as well
STUCK_S = 60.0  # without progress of one of the clients, while the cluster is whole
GOES_ON_S = 60.0  # from a fault to the next confirm and delivery
DRAIN_S = 120.0


class Campaign:
    """One cluster, its clients, and the faults."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._random = Random(seed)
        self._folder = folder
        self.witnessed = 0  # confirms through one broker alone
        self._stack = ExitStack()
        self.cluster = Cluster(folder)
        self._stack.callback(self.cluster.close)
        self.faults_ns: list[int] = []
        self.counts: dict[str, int] = defaultdict(int)
        self.took: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.cuts: dict[str, list[Span]] = defaultdict(list)  # by client
        try:
            self._whole = self.cluster.await_whole()
            self.publishers = self._load("load_publisher.py", PAUSE)
            self._publish_otherwise()
            self.consumers = self._load("load_consumer.py")
            threads = self._folder / "threads.ledger"
            url = self.cluster.url_through(threads.stem)
            self.consumers[threads] = self._run(HERE / "cluster_threads.py", url, QUEUE, threads)
            probed = folder / "prober.ledger"
            self._probes = Probes(probed)
            self._scripts = [
                *self.publishers.values(), *self.witnesses.values(), *self.consumers.values()
            ]  # fmt: skip
            script = HERE / "cluster_prober.py"
            self._scripts.append(self._run(script, self.cluster.url, probed))
        except BaseException:
            self.close()
            raise

    def _load(self, name: str, *more: str) -> dict[Path, Script]:
        scripts = {}
        for number, loop in enumerate((LOOPS[0], LOOPS[-1])):
            ledger = self._folder / f"{Path(name).stem}-{number}.ledger"
            url = self.cluster.url_through(ledger.stem)
            scripts[ledger] = self._run(KILLS / name, url, QUEUE, ledger, loop, *more)
        return scripts

    def _publish_otherwise(self) -> None:
        """Publish by the blocking client, and through each broker alone, whichever leads."""
        ledger = self._folder / "blocking.ledger"
        url = self.cluster.url_through(ledger.stem)
        self.publishers[ledger] = self._run(HERE / "cluster_blocking.py", url, QUEUE, ledger)
        self.witnesses: dict[Path, Script] = {}
        self._calls: dict[str, Path] = {}
        for name, url in self.cluster.urls_alone().items():
            ledger, calls = (
                self._folder / f"{kind}-{name}.ledger" for kind in ("witness", "calls")
            )
            script = HERE / "cluster_witness.py"
            self.witnesses[ledger] = self._run(script, url, QUEUE, ledger, calls)
            self._calls[name] = calls

    def _run(self, path: Path, *words: object) -> Script:
        number = len(list(self._folder.glob("client-*.log")))
        script = Script(path, *words, log=self._folder / f"client-{number}.log")
        self._stack.callback(script.close)
        return script

    def close(self) -> None:
        """End every process."""
        self._stack.close()

    def round(self, name: str = "") -> str:
        """Do one thing, of any kind or of this one, to a cluster that is whole, and wait until it is so again.

        Return what it was.
        """
        leader, other, leading = self._whole
        self._await_progress()
        clients = [path.stem for path in (*self.publishers, *self.consumers)]
        scene = Scene(self.cluster, self._random, leader, other, leading, clients)
        name = name or self._random.choice(list(FAULTS))
        self.cluster.lasts(self._random.uniform(0.05, 0.5))
        fault_ns = monotonic_ns()
        self.faults_ns.append(fault_ns)
        self.counts[name] += 1
        FAULTS[name](scene)
        for client in scene.cut_clients:
            self.cuts[client].append((fault_ns, monotonic_ns()))
        self.cluster.go_on()
        what = f"{name}: a confirm and a delivery"
        self.cluster.until(lambda: self._probes.goes_on(fault_ns), what, GOES_ON_S)
        self._whole = self.cluster.await_whole()
        self.took[name].append(self._probes.longest_s(fault_ns))
        self._probes.forget()
        return name

    def _await_progress(self) -> None:
        """Wait until everybody has written something."""
        ledgers = [*self.publishers, *self.consumers]
        sizes = {path: _size(path) for path in ledgers}

        def all_write() -> bool:
            self._check_clients()
            return all(_size(path) > sizes[path] for path in ledgers)

        self.cluster.until(all_write, "everybody works", STUCK_S)

    def _check_clients(self) -> None:
        for script in self._scripts:
            assert script.running, f"{script.process.args!r} ended:\n{script.output}"

    # -- the end ------------------------------------------------------------------------------------

    def finish(self) -> tuple[Outcome, ClusterBooks]:
        """Stop the publishers, let the consumers take the rest, stop them too; audit the ledgers."""
        publishing = [*self.publishers.values(), *self.witnesses.values()]
        for script in publishing:
            script.stop()
        still_ns = monotonic_ns()
        sizes = [0]

        def is_drained() -> bool:
            nonlocal still_ns
            now = [_size(path) for path in self.consumers]
            if now != sizes:
                sizes[:], still_ns = now, monotonic_ns()
            return monotonic_ns() - still_ns > 3_000_000_000

        self.cluster.until(is_drained, "the rest is taken", DRAIN_S)
        for script in self._scripts[len(publishing) :]:
            script.stop()
        cuts = {index: self.cuts[path.stem] for index, path in enumerate(self.consumers)}
        starts = [
            at
            for broker in self.cluster.brokers.values()
            for at, line in broker.said
            if "listening on" in line
        ]
        books = ClusterBooks(
            [*self.publishers, *self.witnesses], list(self.consumers), self.faults_ns, starts, cuts
        )
        outcome = books.audit()
        claims = [
            (at, broker.name)
            for broker in self.cluster.brokers.values()
            for at, line in broker.said
            if "takes_over" in line
        ]
        calls = {
            name: [(called, at) for _, at, (called,) in read_ledger(path)]
            for name, path in self._calls.items()
        }
        self.witnessed = sum(map(len, calls.values()))
        if deposed := by_deposed(claims, calls):
            outcome.faults.append(
                f"confirmed by a deposed broker, {len(deposed)} times: {deposed!s:.500}"
            )
        return outcome, books


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def load() -> float:
    """Return the load of the last minute."""
    return os.getloadavg()[0]


def figures(took: dict[str, list[tuple[float, float]]]) -> list[str]:
    """Return a line for each kind: for how long nothing was confirmed, and nothing delivered."""
    lines = []
    for name, pairs in sorted(took.items()):
        parts = []
        for verb, times in zip(("confirm", "delivery"), zip(*pairs, strict=True), strict=True):
            parts.append(f"{verb} {min(times):.2f} / {median(times):.2f} / {max(times):.2f}")
        lines.append(f"{name}: {len(pairs)} times, {', '.join(parts)} s")
    return lines


def main() -> None:
    """Run one campaign as the environment says, and end in one line."""
    seed = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
    budget_s = float(os.environ.get("BUDGET") or 3600)
    rounds = int(os.environ.get("ROUNDS") or 1_000_000)
    only = os.environ.get("ONLY") or ""
    folder = Path(tempfile.mkdtemp(prefix="minibroker-cluster-faults-"))
    print(f"SEED={seed} BUDGET={budget_s:.0f} in {folder}", flush=True)
    end_s = monotonic() + budget_s
    campaign = Campaign(folder, seed)
    faults: list[str] = []
    try:
        while monotonic() < end_s and len(campaign.faults_ns) < rounds:
            name = campaign.round(only)
            confirm_s, delivery_s = campaign.took[name][-1]
            count = len(campaign.faults_ns)
            print(
                f"{count} {name}: {confirm_s:.2f} {delivery_s:.2f}, load {load():.1f}", flush=True
            )
        outcome, books = campaign.finish()
        faults += outcome.faults
        print(*figures(campaign.took), sep="\n")
        print(
            f"{outcome} late={books.late} cut_off={books.cut_off} "
            f"witnessed={campaign.witnessed} load={load():.1f}"
        )
    except AssertionError as error:
        faults.append(str(error))
    finally:
        campaign.close()
        for broker in campaign.cluster.brokers.values():
            (folder / f"broker-{broker.name}.log").write_text(tail(broker, 1_000_000))
    for fault in faults:
        print(fault)
    if faults or os.environ.get("KEEP"):
        print(f"ledgers and logs are kept in {folder}")
    else:
        shutil.rmtree(folder)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
