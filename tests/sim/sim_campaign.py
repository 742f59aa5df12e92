"""Many worlds, one seed each, on all cores.

    make sim BUDGET=60 SEED=7
    make sim SEED=7000012 WORLDS=1 TRACE=1        one world alone, with everything that happens in it
    make sim WITH=log                             each world has this capability, whatever else it draws
    make sim WITH=stream                          the log of each world is in a stream, and no disk fails
    make sim WITH=standby                         and other brokers stand by, which take over

Ends in a line of how many worlds used which capabilities, and one of figures; hours are those of simulated time
in which something happened every second.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from random import SystemRandom
from time import monotonic

from sim_capabilities import drawn
from sim_world import World
from standing_sim import StandingWorld
from stream_sim import StreamWorld

KINDS = {"stream": StreamWorld, "standby": StandingWorld}  # of worlds, in WITH
TWICE = 100  # seeds that are run twice, and compared
SHARE = 5  # worlds that a process does before it says what it found
LONGEST_S = (
    60  # of the processor's time, of which a world takes a tenth of a second: it does not end
)


@dataclass(slots=True)
class Figures:
    """What some worlds came to; `str` is the last line of a campaign."""

    worlds: int = 0
    busy_s: float = 0.0
    faults: int = 0
    crashes: int = 0
    confirmed: int = 0
    duplicates: int = 0
    reads: int = 0
    damaged: int = 0
    refusals: int = 0
    compared: int = 0
    equal: int = 0
    judged: int = 0  # hand-outs that the laws of capabilities were laid on
    handed: int = 0  # messages that were begun as they were handed out
    unseen: int = 0  # of these, known to have come back without a handler
    met: Counter[str] = field(default_factory=Counter)  # worlds by capability
    found: list[tuple[int, str]] = field(default_factory=list)  # seed, violation

    def add(self, world: World) -> None:
        """Count a world that has run."""
        seconds = world.loop.now_us / 1e6
        self.worlds += 1
        self.busy_s += seconds if world.loop.events >= seconds else 0
        self.faults += world.faults.count + world.disk.faults
        self.crashes += world.crashes
        self.confirmed += world.checker.confirmed
        self.duplicates += world.checker.duplicates
        self.reads += world.reads
        self.damaged += world.damaged
        self.refusals += world.refusals
        self.judged += world.laws.judged + world.logs.books.judged
        self.handed += world.ledger.handed.count
        self.unseen += world.ledger.handed.came_back
        self.met.update(world.uses.names)
        self.found += [(world.seed, text) for text in world.checker.violations]

    def merge(self, other: Figures) -> None:
        """Take in what another process found."""
        for name in (
            "worlds", "busy_s", "faults", "crashes", "confirmed", "duplicates", "compared", "equal",
            "reads", "damaged", "refusals", "judged", "handed", "unseen", "met",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.found += other.found

    def __str__(self) -> str:
        return (
            f"sim: worlds={self.worlds} hours={self.busy_s / 3600:.1f} faults={self.faults} "
            f"crashes={self.crashes} confirmed={self.confirmed} duplicates={self.duplicates} "
            f"reads={self.reads} damaged={self.damaged} refused={self.refusals} judged={self.judged} "
            f"handed={self.handed} unseen={self.unseen} "
            f"determinism={self.equal}/{self.compared} violations={len(self.found)}"
        )


def make_world(seed: int, trace: Callable[[str], None] | None = None) -> World:
    """Return a world with what its seed draws, and what the environment says."""
    more = os.environ.get("WITH", "").split()
    kinds = [KINDS[name] for name in more if name in KINDS]
    kind = kinds[-1] if kinds else World
    names = [*drawn(seed), *(name for name in more if name not in KINDS)]
    return kind(seed, trace=trace, borders=True, capabilities=names)


def endless(*_: object) -> None:
    """Let the world that runs say where it is, as a violation."""
    raise TimeoutError(f"the world did not end within {LONGEST_S} s")


def run_share(share: tuple[int, int, int]) -> Figures:
    """Run `count` worlds from a seed on, the first `twice` of them two times."""
    first, count, twice = share
    figures = Figures()
    signal.signal(signal.SIGVTALRM, endless)
    for seed in range(first, first + count):
        signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST_S)
        world = make_world(seed).run()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        figures.add(world)
        if seed < first + twice:
            figures.compared += 1
            figures.equal += make_world(seed).run().digest == world.digest
    return figures


def shares(seed: int, worlds: int, end: float) -> Iterator[tuple[int, int, int]]:
    """Yield shares of the work until the time or the worlds are used up."""
    done = 0
    while done < worlds and monotonic() < end:
        count = min(SHARE, worlds - done)
        yield seed + done, count, max(0, min(count, TWICE - done))
        done += count


def run_campaign(seed: int, worlds: int, budget_s: float, processes: int) -> Figures:
    """Run worlds with seeds from `seed` on and return what they came to."""
    figures = Figures()
    end = monotonic() + budget_s
    with get_context("fork").Pool(processes) as pool:
        waiting = []
        for share in shares(seed, worlds, end):
            waiting.append(pool.apply_async(run_share, (share,)))
            if len(waiting) > processes:
                figures.merge(waiting.pop(0).get())
        for result in waiting:
            figures.merge(result.get())
    return figures


def show(seed: int) -> Figures:
    """Run one world and print all that happens in it."""
    figures = Figures()
    figures.add(make_world(seed, trace=print).run())
    return figures


def main() -> None:
    """Run as the environment says, and end in one line."""
    seed = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
    worlds = int(os.environ.get("WORLDS") or 10**9)
    budget_s = float(os.environ.get("BUDGET") or 600)
    processes = int(os.environ.get("PROCESSES") or os.cpu_count() or 1)
    print(f"SEED={seed} BUDGET={budget_s:.0f}", flush=True)
    alone = bool(os.environ.get("TRACE"))
    figures = show(seed) if alone else run_campaign(seed, worlds, budget_s, processes)
    asked = f' WITH="{os.environ["WITH"]}"' if os.environ.get("WITH") else ""
    for number, text in figures.found[:50]:
        print(f"{text}\n    make sim{asked} SEED={number} WORLDS=1 TRACE=1")
    if figures.equal != figures.compared:
        print(f"{figures.compared - figures.equal} worlds from seed {seed} on went two ways")
    print("met:", " ".join(f"{name}={count}" for name, count in sorted(figures.met.items())))
    print(figures)
    sys.exit(bool(figures.found) or figures.equal != figures.compared)


if __name__ == "__main__":
    main()
