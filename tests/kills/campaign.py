"""SIGKILL of the broker at random moments under load, and the books of everybody afterwards.

    make crash KILLS=100 SEED=7
    make stops KILLS=100 SEED=7         the same with SIGTERM: each stop must end with 0 within ten seconds
                                        and what was handled twice, or refused, counts as much as what was lost
    make crash WITH=stream              the log is in a stream of a server of NATS, which goes on

Two publishers and two consumers work through it in processes of their own, one of each on asyncio's loop
and on uvloop's. What they wrote into their ledgers is all that is believed; the server's word counts for nothing.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from random import Random, SystemRandom
from time import monotonic, monotonic_ns

from books import Books, Outcome
from load_scripts import load_scripts
from loops import LOOPS

import minibroker
from support.broker import BrokerServer
from support.nats_nodes import Nodes
from support.processes import lasts, look_until
from support.scripts import Script

QUEUE = "load"
SEGMENT_BYTES = (256 * 1024, 1024 * 1024, 64 * 1024 * 1024)
STILL_S = 20.0  # a drain without progress for so long will not end
LONGEST_STOP_S = 10.0


class Campaign:
    """One broker, its clients, and the kills."""

    def __init__(
        self, directory: Path, seed: int, *, stops: bool = False, on_stream: bool = False
    ) -> None:
        self._directory = directory
        self._stops = stops
        self.slowest_stop_s = 0.0
        self._random = Random(seed)
        self._stack = ExitStack()
        self.kills_ns: list[int] = []
        # Small segments: kills hit the change from one to the next, too.
        segment_bytes = self._random.choice(SEGMENT_BYTES)
        flags = ["--segment-bytes", str(segment_bytes)]
        if on_stream:
            nodes = Nodes(directory / "nats", 1)
            self._stack.callback(nodes.end)
            nodes.start()
            flags = ["--log", nodes.address("load")]
        self.server = BrokerServer(directory / "data", *flags)
        self._stack.callback(self.server.close)
        self.publishers = self._scripts("load_publisher.py")
        self.consumers = self._scripts("load_consumer.py")

    def _scripts(self, name: str) -> dict[Path, Script]:
        loops = LOOPS[0], LOOPS[-1]
        return load_scripts(self._stack, self._directory, name, self.server.url, QUEUE, *loops)

    def close(self) -> None:
        """End every process."""
        self._stack.close()

    def kill(self) -> None:
        """Let the broker work for a random while, kill it, start it again.

        In every second round everybody works again before the while begins; in half of the others the publishers
        do, and in the rest the kill may hit the reconnecting and the resuming.
        """
        everybody, some = [*self.publishers, *self.consumers], [[*self.publishers], []]
        odd = len(self.kills_ns) % 2
        self._await_progress(self._random.choice(some) if odd else everybody)
        assert lasts(self.server.process, self._random.uniform(0.05, 0.5)), self.server.output
        self._end_broker()
        self.kills_ns.append(monotonic_ns())
        self._check_clients()
        self.server.restart()

    def _end_broker(self) -> None:
        if not self._stops:
            self.server.kill()
            return
        began_s = monotonic()
        code = self.server.stop()
        took_s = monotonic() - began_s
        self.slowest_stop_s = max(self.slowest_stop_s, took_s)
        assert code == 0, f"it stopped with {code}:\n{self.server.output}"
        assert took_s < LONGEST_STOP_S, f"it took {took_s:.1f} s to stop:\n{self.server.output}"

    def _await_progress(self, ledgers: list[Path]) -> None:
        sizes = {path: _size(path) for path in ledgers}
        look_until(
            lambda: all(_size(path) > sizes[path] for path in ledgers),
            self.server.process,
            "everybody works again",
        )

    def _check_clients(self) -> None:
        for script in (*self.publishers.values(), *self.consumers.values()):
            assert script.running, f"{script.process.args!r} ended:\n{script.output}"

    def finish(self) -> Outcome:
        """Stop the publishers, let the consumers drain the queue, stop them too; audit the ledgers."""
        for script in self.publishers.values():
            script.stop()
        asyncio.run(self._drain())
        for script in self.consumers.values():
            script.stop()
        return Books(list(self.publishers), list(self.consumers), self.kills_ns).audit()

    async def _drain(self) -> None:
        async with minibroker.connect(self.server.url) as broker:
            queue = broker.queue(QUEUE)
            counters, deadline = await _counters(queue), monotonic() + STILL_S
            while any(counters[state] for state in ("ready", "delayed", "held", "begun")):
                assert await asyncio.to_thread(lasts, self.server.process, 0.05)
                before, counters = counters, await _counters(queue)
                if counters["acked"] > before["acked"]:
                    deadline = monotonic() + STILL_S
                assert monotonic() < deadline, f"nothing is acked any more: {counters}"


async def _counters(queue: minibroker.Queue[bytes]) -> dict[str, int]:
    counters: dict[str, int] = (await queue.stats())["queues"][QUEUE]
    return counters


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def run_campaign(
    directory: Path,
    kills: int,
    seed: int,
    budget_s: float,
    *,
    stops: bool = False,
    on_stream: bool = False,
) -> Outcome:
    """Kill the broker `kills` times, fewer if `budget_s` is used up, and return what the ledgers say.

    With `stops` it is asked to stop instead; `on_stream`: its log is in a stream of NATS.
    """
    end = monotonic() + budget_s
    campaign = Campaign(directory, seed, stops=stops, on_stream=on_stream)
    try:
        while len(campaign.kills_ns) < kills and monotonic() < end:
            campaign.kill()
        outcome = campaign.finish()
        if stops:
            outcome.verb, outcome.slowest_stop_s = "stops", campaign.slowest_stop_s
        return outcome
    finally:
        campaign.close()


def main() -> None:
    """Run one campaign as the environment says, and end in one line."""
    kills = int(os.environ.get("KILLS") or 100)
    seed = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
    budget_s = float(os.environ.get("BUDGET") or 600)
    print(f"KILLS={kills} SEED={seed} BUDGET={budget_s:.0f}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="minibroker-crash-"))
    stops = os.environ.get("SIGNAL") == "TERM"
    on_stream = os.environ.get("WITH") == "stream"
    outcome = run_campaign(directory, kills, seed, budget_s, stops=stops, on_stream=on_stream)
    for fault in outcome.faults:
        print(fault)
    if outcome.faults:
        print(f"ledgers and data are kept in {directory}")
    else:
        shutil.rmtree(directory)
    print(outcome)
    sys.exit(bool(outcome.faults))


if __name__ == "__main__":
    main()
