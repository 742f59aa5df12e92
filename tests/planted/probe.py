"""What runs in a copy: simulated worlds, crash states or damage, until the first violation.

    python tests/planted/probe.py sim 1 60
    python tests/planted/probe.py logs 1 60
    python tests/planted/probe.py streams 1 60
    python tests/planted/probe.py standing 1 60
    python tests/planted/probe.py cuts 1 freeing
    python tests/planted/probe.py flips 1 closed

Exit code 1, and a last line that begins with `by=`, say that something was found.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import Final

import stream_world
from cuts_campaign import Damages
from layers import WORLDS
from sim_world import World
from standing_sim import StandingWorld
from sweep import Source, Sweep

SEGMENT_BYTES: Final = 4096
STRIDE: Final = 7  # one point in so many of a recording
PARTS: Final = 101  # one damage in so many of a log


def worlds(seed: int, count: int, capabilities: Collection[str] | None) -> Iterator[str]:
    """Yield the violations of simulated worlds; None: they have what each seed draws."""
    for number in range(seed, seed + count):
        world = World(number, borders=True, capabilities=capabilities).run()
        for text in world.checker.violations:
            yield f"seed={number} {text.strip().splitlines()[-1] if 'exception' in text else text}"


def streams(seed: int, count: int) -> Iterator[str]:
    """Yield the violations of brokers on simulated streams."""
    for number in range(seed, seed + count):
        try:
            stream_world.worlds(number, 1)
        except stream_world.Broken as broken:
            yield str(broken)


def standing(seed: int, count: int) -> Iterator[str]:
    """Yield the violations of worlds on a stream in which other brokers stand by."""
    for number in range(seed, seed + count):
        for text in StandingWorld(number, borders=True).run().checker.violations:
            yield f"seed={number} {text.strip().splitlines()[-1] if 'exception' in text else text}"


def crashes(seed: int, workload: str) -> Iterator[str]:
    """Yield the violations of the states that crashes leave: at some points, and behind each rename."""
    sweep = Sweep(Source(workload, SEGMENT_BYTES, seed))
    steps = sweep.recording.steps
    named = {at + 1 for at, step in enumerate(steps) if step.call == "rename"}
    points = named | set(range(1 + seed % STRIDE, len(steps) + 1, STRIDE))
    for tally in sweep.run(points):
        for fault in tally.faults:
            yield f"seed={seed} {fault}"


def damages(seed: int, how: str) -> Iterator[str]:
    """Yield the violations of flipped bits, cuts, and what else may happen to files."""
    some = Damages(seed, closed=how == "closed")
    for trial in some.trials(1 + seed % (PARTS - 1), PARTS):
        for fault in some.attempt(trial).faults:
            yield f"seed={seed} {fault}"


def main() -> None:
    """Run as the arguments say."""
    kind, seed, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if kind == "streams":
        found = streams(seed, int(what))
    elif kind == "standing":
        found = standing(seed, int(what))
    elif kind in WORLDS:
        found = worlds(seed, int(what), ("log",) if kind == "logs" else None)
    else:
        found = crashes(seed, what) if kind == "cuts" else damages(seed, what)
    for text in found:
        print(f"by={text}".replace("\n", " "))
        sys.exit(1)


if __name__ == "__main__":
    main()
