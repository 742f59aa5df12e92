"""`python -m benchmarks.cores`: what more cores would give a broker, by a model with measured costs.

Nothing is started. Threads wait for one of so many cores, work for as long as was measured, and wait for the disk.
docs/decisions/0091 has where the costs come from, and how far the model is to be believed.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

Call = Callable[[], object]

WARM_UP_US: Final = 200_000.0
MEASURED_US: Final = 600_000.0
HEADS: Final = "| work, connections | cores | as it is | threads in front | shards | a sync |"
NETWORK_US: Final = 50.0  # from an answer to the next frame of a client on another machine


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU of one frame and what belongs to it, in microseconds; `sync` is waiting.

    `turn`: of the loop, whatever it finds; `read`: a frame is received, cut and checked; `core`: it is applied;
    `answer`: all that is sent for it; `close` and `write`: a batch, in the loop and in the thread that writes it;
    `hop`: a frame is handed to another thread, on each side.
    """

    messages: int  # of a frame
    turn: float
    read: float
    core: float
    answer: float
    close: float
    write: float
    sync: float
    hop: float


# Of one broker, split by samples of its stacks. A frame of 16 or 100 stands for three: publish, delivery, ack.
LONE: Final = Costs(1, turn=8, read=11, core=12, answer=18, close=55, write=95, sync=90, hop=6)
WORKS: Final = (  # with the number of connections
    ("lone publishes", LONE, 32),
    ("lone publishes", LONE, 256),
    ("1,000 tasks", replace(LONE, messages=500, read=70, core=90, answer=40), 32),
    ("frames of 16", replace(LONE, messages=16, read=20, core=30, answer=76), 32),
    ("frames of 100", replace(LONE, messages=100, read=22, core=36, answer=80), 32),
)


class Machine:
    """Virtual time, and cores for which threads wait in the order in which they had something to do."""

    def __init__(self, cores: int) -> None:
        self.now_us = 0.0
        self.ready: deque[Thread] = deque()
        self.free = cores
        self._events: list[tuple[float, int, Call]] = []
        self._count = 0

    def after(self, us: float, call: Call) -> None:
        """Call when so much time has passed."""
        self._count += 1
        heapq.heappush(self._events, (self.now_us + us, self._count, call))

    def run_until(self, until_us: float) -> None:
        """Let time pass."""
        self._assign()
        while self._events[0][0] <= until_us:
            self.now_us, _, call = heapq.heappop(self._events)
            call()
            self._assign()

    def _assign(self) -> None:
        while self.free and self.ready:
            self.free -= 1
            thread = self.ready.popleft()
            self.after(thread.turn(), thread.rest)


class Thread:
    """Does all that it finds, one after the other, as a turn of a loop does; then calls `at_rest`."""

    def __init__(self, machine: Machine, turn_us: float = 0, at_rest: Call = lambda: None) -> None:
        self._machine = machine
        self._turn_us = turn_us
        self._at_rest = at_rest
        self._inbox: list[tuple[float, Call]] = []
        self._busy = False

    def give(self, cost_us: float, then: Call) -> None:
        """Have it work for so long, and call `then`."""
        self._inbox.append((cost_us, then))
        if not self._busy:
            self._busy = True
            self._machine.ready.append(self)

    def turn(self) -> float:
        """Do all that is there; return how long it takes."""
        found, self._inbox = self._inbox, []
        at_us = self._turn_us
        for cost_us, then in found:
            at_us += cost_us
            self._machine.after(at_us, then)
        return at_us

    def rest(self) -> None:
        """End a turn: give the core back, and wait for the next one if there is more."""
        self._machine.free += 1
        self._at_rest()
        self._busy = bool(self._inbox)
        if self._busy:
            self._machine.ready.append(self)


class Shard:
    """A core with a loop, a log and the thread that writes it: one batch is under way, the others gather."""

    def __init__(self, machine: Machine, costs: Costs) -> None:
        self.loop = Thread(machine, costs.turn, self._close)
        self.frames = self.syncs = 0
        self._machine = machine
        self._costs = costs
        self._writer = Thread(machine)
        self._open: list[Call] = []
        self._batch: list[Call] = []

    def apply(self, cost_us: float, confirmed: Call) -> None:
        """Apply a frame, and call `confirmed` in the loop when its batch is synced."""
        self.loop.give(cost_us, partial(self._open.append, confirmed))

    def _close(self) -> None:
        if self._open and not self._batch:
            self._batch = self._open.copy()
            self._open.clear()
            synced = partial(self.loop.give, 0, self._synced)
            sync = partial(self._machine.after, self._costs.sync, synced)
            self.loop.give(self._costs.close, partial(self._writer.give, self._costs.write, sync))

    def _synced(self) -> None:
        batch, self._batch = self._batch, []
        self.syncs += 1
        self.frames += len(batch)
        for confirmed in batch:
            confirmed()


def messages_per_s(
    costs: Costs, cores: int, connections: int, *, shards: int = 1, fronts: int = 0
) -> tuple[float, float]:
    """Return messages a second, and messages of a sync; `fronts` are threads; clients are on another machine."""
    machine = Machine(cores)
    brokers = [Shard(machine, costs) for _ in range(shards)]
    threads = [Thread(machine, costs.turn) for _ in range(fronts)]

    def connect(number: int) -> None:
        shard = brokers[number % shards]
        front, hop_us = (threads[number % fronts], costs.hop) if fronts else (shard.loop, 0.0)

        def send() -> None:
            if fronts:
                back = partial(shard.loop.give, hop_us, answer)
                front.give(costs.read + hop_us, partial(shard.apply, hop_us + costs.core, back))
            else:
                shard.apply(costs.read + costs.core, answer)

        again = partial(machine.after, NETWORK_US, send)
        answer = partial(front.give, hop_us + costs.answer, again)
        send()

    for number in range(connections):
        connect(number)
    machine.run_until(WARM_UP_US)
    for each in brokers:
        each.frames = each.syncs = 0
    machine.run_until(WARM_UP_US + MEASURED_US)
    done = sum(each.frames for each in brokers) * costs.messages
    return done / MEASURED_US * 1e6, done / max(1, sum(each.syncs for each in brokers))


def main() -> None:
    """Print messages a second of each design, for each work, as a table."""
    print(HEADS, "| --- " * 6 + "|", sep="\n")
    for work, costs, count in WORKS:
        for cores in (1, 2, 4, 8):
            run = partial(messages_per_s, costs, cores, count)
            found = run(), run(fronts=max(1, cores - 1)), run(shards=cores)
            cells = [f"{rate:,.0f}" for rate, _ in found]
            cells.append(f"{found[0][1]:,.0f}, {found[2][1]:,.0f}")
            print(f"| {work}, {count} | {cores} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
