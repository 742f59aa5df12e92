"""Back-ups under load, and something killed at a random moment: what each restored copy has and hands out.

    make backups ROUNDS=20 SEED=7

Publishers and consumers work through one server in processes of their own; some messages lie in a second queue
and are acked by hand. Each round takes a back-up, and kills it, the server, the restore, or nothing. Then
the newest back-up is restored and checked, a server is started on it and everything is taken out. What is believed
is what was confirmed to a client, and when.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from time import monotonic, monotonic_ns

from books import Books
from load_scripts import load_scripts
from loops import LOOPS
from worker_ledger import read_ledger

import minibroker
from support.broker import COMMAND, BrokerServer
from support.processes import lasts, look_until, was_killed
from support.scripts import Script

LOAD, PARKED = "load", "parked"
SEGMENT_BYTES = (64 * 1024, 256 * 1024, 1024 * 1024)
RATES = ("0", "16MiB", "2MiB")
KINDS = ("nothing", "back-up", "server", "both", "restore")
PARKED_AT_FIRST, ACKED_A_ROUND = 2_000, 40
STILL_S = 20.0
WAITING = ("ready", "delayed", "held")

Id = tuple[int, int]
Process = subprocess.Popen[str]


@dataclass(slots=True)
class Round:
    """One round; `str` is its line."""

    number: int
    killed: str
    segment_bytes: int
    backup: int | None = None  # the number of the back-up that was restored
    taken: bool = False  # whether that one was taken in this round
    confirmed: int = 0
    acked: int = 0
    found: int = 0
    lost: int = 0
    again: int = 0
    twice: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        what = (
            "none yet"
            if self.backup is None
            else f"{self.backup}{'' if self.taken else ' (earlier)'}"
        )
        return (
            f"round {self.number:2d}: killed={self.killed:7s} restored={what} confirmed={self.confirmed} "
            f"acked={self.acked} found={self.found} lost={self.lost} acked_and_found={self.again} "
            f"handed_out_twice={self.twice} faults={len(self.faults)} s={self.seconds:.1f}"
        )


@dataclass(slots=True)
class Moment:
    """What was certain when a back-up began, and what may have been acked until it ended."""

    began_ns: int
    ended_ns: int = 0


class Campaign:
    """One server under load, one place of back-ups, and the rounds."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory = directory
        self._random = Random(seed)
        self._stack = ExitStack()
        self._place = directory / "backups"
        self.segment_bytes = self._random.choice(SEGMENT_BYTES)
        self.server = BrokerServer(
            directory / "data", "--segment-bytes", str(self.segment_bytes), "--no-http"
        )
        self._stack.callback(self.server.close)
        self._publishers = self._scripts("load_publisher.py", LOOPS[0])
        self._consumers = self._scripts("load_consumer.py", LOOPS[-1], LOOPS[-1])
        self._moments: dict[int, Moment] = {}  # of each back-up, by its number
        self._parked: dict[Id, int] = {}  # when it was confirmed
        self._parked_acked: dict[Id, int] = {}
        self.kills_ns: list[int] = []
        self._all_found: set[Id] = set()
        asyncio.run(self._park())

    def _scripts(self, name: str, *loops: str) -> dict[Path, Script]:
        return load_scripts(self._stack, self._directory, name, self.server.url, LOAD, *loops)

    def close(self) -> None:
        """End every process."""
        self._stack.close()

    # ---- one round ----

    def round(self, number: int, killed: str) -> Round:
        """Take a back-up, kill what is said, restore the newest one that is there and judge it."""
        began_s = monotonic()
        this = Round(number, killed, self.segment_bytes)
        self._await_progress()
        asyncio.run(self._ack_some())
        moment = Moment(monotonic_ns())
        process = self._back_up()
        self._kill(killed, process)
        moment.ended_ns = monotonic_ns()
        self._note(this, process, moment)
        if this.backup is not None:
            with self._at_rest():
                self._judge(this, killed)
        this.seconds = monotonic() - began_s
        return this

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Let the publishers stand still: what is judged meanwhile is a copy."""
        # Not the consumers: who does not come back at once after a kill of the server loses what he was at.
        scripts = list(self._publishers.values())
        for script in scripts:
            script.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for script in scripts:
                script.process.send_signal(signal.SIGCONT)

    def _back_up(self) -> Process:
        rate = self._random.choice(RATES)
        words = ("backup", str(self._place), "--data-dir", str(self.server.data_dir), "--keep", "2")
        return _start(*words, "--rate", rate, "--json")

    def _kill(self, killed: str, process: Process) -> None:
        if killed in ("server", "both"):
            lasts(process, self._random.uniform(0.1, 0.6))
            self.server.kill()
            self.kills_ns.append(monotonic_ns())
            if self._random.random() < 0.5:
                lasts(process, self._random.uniform(0.0, 0.2))
            self.server.restart()
        if killed in ("back-up", "both") and lasts(process, self._random.uniform(0.1, 0.8)):
            process.kill()
        process.wait()

    def _note(self, this: Round, process: Process, moment: Moment) -> None:
        printed, said = process.communicate()
        code = process.returncode
        if code != 0 and not was_killed(code):
            this.faults.append(f"the back-up ended with {code}: {said}")
        listed = subprocess.run(
            [*COMMAND, "backup", str(self._place), "--list", "--json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        numbers = [json.loads(line)["number"] for line in listed.stdout.splitlines()]
        for each in numbers:
            if each not in self._moments:
                self._moments[each] = moment
                this.taken = True
        if code == 0 and not this.taken:
            this.faults.append(f"the back-up ended with 0, and there is none: {printed}")
        if code != 0 and self._moments and not numbers:
            this.faults.append(f"earlier back-ups are gone: {listed.stderr}")
        this.backup = max(numbers, default=None)

    def _judge(self, this: Round, killed: str) -> None:
        target = self._directory / f"restored-{this.number}"
        if killed == "restore":
            process = self._restore(target, this)
            if lasts(process, self._random.uniform(0.2, 1.0)):
                process.kill()
            process.communicate()
        # Killed behind its last step, it is whole, and not restored once more.
        if killed != "restore" or (process.returncode != 0 and not _is_whole(target)):
            self._finish(this, self._restore(target, this), "restore")
        self._finish(this, _start("log", "check", "--data-dir", str(target)), "log check")
        if this.faults:
            return
        copy = BrokerServer(target, "--segment-bytes", str(self.segment_bytes), "--no-http")
        try:
            handed, left = asyncio.run(_taken_out(copy))
        finally:
            copy.close()
        self._compare(this, handed, left)
        if not this.faults:
            shutil.rmtree(target)

    def _restore(self, target: Path, this: Round) -> Process:
        more = ("--new-sessions",) if self._random.random() < 0.5 else ()
        number = ("--number", str(this.backup))
        return _start("restore", str(self._place), "--data-dir", str(target), *number, *more)

    def _finish(self, this: Round, process: Process, what: str) -> None:
        printed, said = process.communicate()
        if process.returncode != 0:
            this.faults.append(f"{what} ended with {process.returncode}: {printed}{said}")

    # ---- what is believed ----

    def _compare(self, this: Round, handed: list[Id], left: set[Id]) -> None:
        assert this.backup is not None
        moment = self._moments[this.backup]
        confirmed, acked, maybe = self._certain(moment)
        found = {*handed, *left}
        self._all_found |= found
        this.confirmed, this.acked, this.found = len(confirmed), len(acked), len(found)
        lost, again = confirmed - found - maybe, found & acked
        twice = len(handed) - len(set(handed))
        this.lost, this.again, this.twice = len(lost), len(again), twice
        for what, ids in (("lost", lost), ("acked before, and found", again)):
            if ids:
                this.faults.append(f"{what}: {sorted(ids)[:20]}")
        if twice:
            this.faults.append(f"{twice} handed out twice")

    def _certain(self, moment: Moment) -> tuple[set[Id], set[Id], set[Id]]:
        """Return what was confirmed before, what was acked before, and what may have been acked until the end."""
        confirmed = {id for id, at in self._parked.items() if at < moment.began_ns}
        acked = {id for id, at in self._parked_acked.items() if at < moment.began_ns}
        maybe = {id for id, at in self._parked_acked.items() if at < moment.ended_ns}
        for path in self._publishers:
            for _, at, (origin, first, count) in read_ledger(path):
                if at < moment.began_ns:
                    confirmed |= {(origin, first + index) for index in range(count)}
        lines = [entry for path in self._consumers for entry in read_ledger(path)]
        for verb, at, (origin, sequence, _, _) in sorted(lines, key=lambda entry: entry.time_ns):
            if verb == "safe" and at < moment.began_ns:
                acked.add((origin, sequence))
            # What was begun before the end may have been acked before it, whenever its ledger says so.
            if verb == "begun" and at < moment.ended_ns:
                maybe.add((origin, sequence))
            elif verb == "nacked" and at < moment.began_ns:
                maybe.discard((origin, sequence))
        return confirmed, acked, maybe

    async def _park(self) -> None:
        async with minibroker.connect(self.server.url, name="parking") as broker:
            confirms = await broker.queue(PARKED).publish_many([b"parked" * 20] * PARKED_AT_FIRST)
            now_ns = monotonic_ns()
            self._parked = {(each.id.origin, each.id.sequence): now_ns for each in confirms}

    async def _ack_some(self) -> None:
        async with minibroker.connect(self.server.url, name="parking") as broker:
            taken = 0
            async for message in broker.queue(PARKED).consume(prefetch=1):
                await message.ack(confirmed=True)
                self._parked_acked[message.id.origin, message.id.sequence] = monotonic_ns()
                taken += 1
                if taken == ACKED_A_ROUND:
                    break

    def _await_progress(self) -> None:
        scripts = {**self._publishers, **self._consumers}
        sizes = {path: _size(path) for path in scripts}
        look_until(
            lambda: all(_size(path) > sizes[path] for path in scripts),
            self.server.process,
            "everybody works again",
        )
        for script in scripts.values():
            assert script.running, f"{script.process.args!r} ended:\n{script.output}"

    # ---- the end ----

    def finish(self) -> list[str]:
        """Let the original come to its end, and return what its own books say against it."""
        for script in self._publishers.values():
            script.stop()
        asyncio.run(self._drain())
        for script in self._consumers.values():
            script.stop()
        outcome = Books(list(self._publishers), list(self._consumers), self.kills_ns).audit()
        known = {*self._parked, *(id for path in self._publishers for id in _confirmed(path))}
        invented = self._all_found - known
        if invented:
            outcome.faults.append(f"found, and nobody published it: {sorted(invented)[:20]}")
        return outcome.faults

    async def _drain(self) -> None:
        async with minibroker.connect(self.server.url) as broker:
            queue, deadline, acked = broker.queue(LOAD), monotonic() + STILL_S, -1
            while True:
                counters = (await queue.stats())["queues"][LOAD]
                if not any(counters[state] for state in (*WAITING, "begun")):
                    return
                if counters["acked"] > acked:
                    acked, deadline = counters["acked"], monotonic() + STILL_S
                assert monotonic() < deadline, f"nothing is acked any more: {counters}"
                assert await asyncio.to_thread(lasts, self.server.process, 0.05)


async def _taken_out(server: BrokerServer) -> tuple[list[Id], set[Id]]:
    """Return what a server hands out until nothing waits, and what sessions that are gone still have."""
    handed: list[Id] = []
    left: set[Id] = set()
    async with minibroker.connect(server.url, name="taking out") as broker:
        for name in (LOAD, PARKED):
            queue = broker.queue(name)
            if name not in (await queue.stats())["queues"]:
                continue
            before = len(handed)

            async def take(message: minibroker.Message[bytes]) -> None:
                handed.append((message.id.origin, message.id.sequence))

            working = asyncio.ensure_future(queue.run(take, 256))
            while await _waits(queue):
                assert await asyncio.to_thread(lasts, server.process, 0.02)
            working.cancel()
            await asyncio.wait([working])
            after = b""
            while True:
                page = await queue.peek(1_000, after=after)
                left |= {(each.id.origin, each.id.sequence) for each in page}
                after = page.next
                if not after:
                    break
            left -= set(handed[before:])
    return handed, left


async def _waits(queue: minibroker.Queue[bytes]) -> bool:
    counters = (await queue.stats())["queues"][queue.name]
    return any(counters[state] for state in WAITING)


def _confirmed(path: Path) -> list[Id]:
    return [
        (origin, first + index)
        for _, _, (origin, first, count) in read_ledger(path)
        for index in range(count)
    ]


def _start(*words: str) -> Process:
    return subprocess.Popen(
        [*COMMAND, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def _is_whole(target: Path) -> bool:
    return (target / "restored.json").exists() and not (target / "restore-moving").exists()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def run_campaign(directory: Path, rounds: int, seed: int, budget_s: float) -> list[Round]:
    """Return the rounds, with what was wrong in them; the last one has what the original's books say as well."""
    end = monotonic() + budget_s
    campaign = Campaign(directory, seed)
    random, done = Random(seed), list[Round]()
    kinds: list[str] = []
    try:
        while len(done) < rounds and monotonic() < end:
            kinds = kinds or random.sample(KINDS, len(KINDS))
            if not done:
                # The first back-up is whole: else a few rounds may have nothing to restore.
                kinds.sort(key="restore".__eq__)
            done.append(campaign.round(len(done) + 1, kinds.pop()))
            print(done[-1], flush=True)
        done[-1].faults += campaign.finish()
    finally:
        campaign.close()
    return done


def main() -> None:
    """Run one campaign as the environment says, and end in one line."""
    rounds = int(os.environ.get("ROUNDS") or 20)
    seed = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
    budget_s = float(os.environ.get("BUDGET") or 900)
    print(f"ROUNDS={rounds} SEED={seed} BUDGET={budget_s:.0f}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="minibroker-backups-"))
    done = run_campaign(directory, rounds, seed, budget_s)
    faults = [fault for each in done for fault in each.faults]
    for fault in faults:
        print(fault)
    if faults:
        print(f"everything is kept in {directory}")
    else:
        shutil.rmtree(directory)
    judged = [each for each in done if each.backup is not None]
    print(
        f"backups: rounds={len(done)} restored={len(judged)} lost={sum(each.lost for each in done)} "
        f"acked_and_found={sum(each.again for each in done)} "
        f"handed_out_twice={sum(each.twice for each in done)} faults={len(faults)}"
    )
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
