"""What waiting messages cost: memory of the server for each, and seconds of a start after SIGKILL.

Both sides get servers of their own, which see nothing but the backlog. The peer is filled first, for as long
as it may take; minibroker gets the same number.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, perf_counter, sleep

from benchmarks.peers.client import make
from benchmarks.peers.contestant import Contestant, Sample
from benchmarks.peers.servers import SERVERS, MinibrokerServer
from benchmarks.peers.sides import Side
from benchmarks.peers.works import BODY_BYTES, Work

COLD_FLAGS = "--memory-limit 67108864"
CHUNK = 10_000
WARM_UP = 1_000
SETTLE_S = (
    1.0  # what a server does right after the last publish is not what a waiting message costs
)
ANSWER_TIMEOUT_S = 300.0


class Backlog:
    """Filled once, measured as often as asked."""

    def __init__(
        self, stack: ExitStack, side: Side, folder: Path, messages: int, fill_seconds: float
    ) -> None:
        self._side, self._folder = side, folder
        self._wanted, self._stack = messages, stack
        self._options = ("minibroker", side.level), (side.peer.name, side.option)
        self._grown: dict[str, Sample] = {}
        theirs = self._contestant(side.peer.name, "backlog-theirs", side.option, side.option)
        self.messages = self._fill("theirs", theirs, messages, fill_seconds)
        ours = self._contestant("minibroker", "backlog-ours", "", side.level)
        self._fill("ours", ours, self.messages, float("inf"))
        self.contestants = (ours, theirs)

    def measure(
        self, work: Work, pairs: int
    ) -> tuple[tuple[int, int], list[tuple[Sample, Sample]]]:
        """Return the counts and the samples of a work: one pair for memory, `pairs` restarts."""
        if work.name == "memory-cold":
            count = self._fill_cold()
            return (count, self.messages), [(self._grown["cold"], self._grown["theirs"])]
        if work.do == "memory":
            return (self.messages,) * 2, [(self._grown["ours"], self._grown["theirs"])]
        samples = [(self._restart(0), self._restart(1)) for _ in range(pairs)]
        return (self.messages,) * 2, samples

    def _contestant(self, peer: str, name: str, server: str, client: str) -> Contestant:
        return Contestant(self._stack, peer, SERVERS[peer](self._folder / name, server), client)

    def _fill(self, name: str, contestant: Contestant, most: int, seconds: float) -> int:
        """Fill a queue, note what each message took of the memory, return how many there are."""
        contestant.fill(WARM_UP, BODY_BYTES)
        contestant.order("purge")
        said_before = contestant.order("waiting")["server_bytes"]
        before = contestant.server.resident()
        ends, filled = monotonic() + seconds, 0
        while filled < most and monotonic() < ends:
            contestant.fill(CHUNK, BODY_BYTES)
            filled += CHUNK
        sleep(SETTLE_S)
        grown = (contestant.server.resident() - before) / filled
        said = contestant.order("waiting")["server_bytes"]
        beside = {"said_by_server": round((said - said_before) / filled, 1)} if said else {}
        self._grown[name] = Sample(grown, 0.0, beside)
        return filled

    def _fill_cold(self) -> int:
        # All of them, whatever the peer got: fewer would fit into the limit and stay hot.
        with ExitStack() as stack:
            folder = self._folder / "backlog-cold"
            level = self._side.level
            cold = Contestant(stack, "minibroker", MinibrokerServer(folder, COLD_FLAGS), level)
            return self._fill("cold", cold, self._wanted, float("inf"))

    def _restart(self, index: int) -> Sample:
        """Kill a server, start it, and return the seconds from exec until it told what waits."""
        contestant, (peer, option) = self.contestants[index], self._options[index]
        contestant.drop_clients()
        contestant.server.kill()
        started = perf_counter()
        contestant.server.start()
        waiting = asyncio.run(first_answer(peer, contestant.server.url, option))
        seconds = perf_counter() - started
        return Sample(seconds, seconds, {"waiting_after": float(waiting)})


async def first_answer(peer: str, url: str, option: str) -> int:
    """Ask how many messages wait, again and again, until the server answers."""
    ends = monotonic() + ANSWER_TIMEOUT_S
    while True:
        client = make(peer, url, option)
        try:
            await client.open()
            waiting = await client.waiting()
            await client.close()
            return waiting
        # Each library has its own errors for "not yet"; the last one is raised when time is up.
        except Exception:
            if monotonic() > ends:
                raise
            await asyncio.sleep(0.01)
