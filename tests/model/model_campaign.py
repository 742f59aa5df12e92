"""Steps of the core beside its model without end, one seed after the other; `make test` has 2,400 of them.

    make model STEPS=1000000 SEED=7

Each share is what `python -m pytest tests/core/test_model.py --hypothesis-seed=SEED` runs; that command makes
small what it found. Ends in one line: how many steps there were. Before it stands in how many of them messages
with which capabilities were there.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter
from itertools import combinations
from random import SystemRandom
from time import monotonic

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import invariant, run_state_machine_as_test
from test_model import Broker

from model import Model

EXAMPLES = 50  # of one share
DEEP = 100  # steps of one example


class Counts:
    """What was done so far."""

    def __init__(self) -> None:
        self.steps = 0
        self.restarts = 0
        self.met: Counter[str] = Counter()  # steps at which a capability was used
        self.pairs: Counter[tuple[str, str]] = Counter()


COUNTS = Counts()


class Counted(Broker):
    """The machine of the test, which notes what it meets."""

    @invariant()
    def it_is_counted(self) -> None:
        """Count a step, and the capabilities that met in it."""
        COUNTS.steps += 1
        names = sorted(used(self.model))
        COUNTS.met.update(names)
        COUNTS.pairs.update(combinations(names, 2))


def used(model: Model) -> set[str]:
    """Return the capabilities that messages which are there make use of."""
    messages, met = model.messages.values(), set[str]()
    for message in messages:
        met |= {"key"} if message.key else set()
        met |= {"priority"} if message.priority else set()
        met |= {"ttl"} if message.ttl_ms else set()
        met |= {"unique"} if message.unique else set()
        met |= {"begun"} if message.state == "BEGUN" else set()
        met |= {"handed"} if message.state == "BEGUN" and message.handed else set()
        met |= {"unseen"} if message.unseen else set()
        met |= {"delayed"} if message.state == "DELAYED" else set()
        met |= {"dead"} if message.dead or message.queue == "q.dlq" else set()
    met |= {"limit"} if model.setting("q", "max_messages") else set()
    met |= {"circuit"} if model.circuits.open else set()
    met |= {"dedupe"} if model.kept.dedupes else set()
    met |= {"pause"} if model.kept.paused_until_unix_ms else set()
    met |= {"cancel"} if model.cancelled else set()
    met |= {"restart"} if model.epoch > 1 else set()
    return met


def run_share(number: int) -> str:
    """Run one share; return what it found, empty: nothing."""
    machine = seed(number)(type("Share", (Counted,), {}))
    quiet = settings(
        max_examples=EXAMPLES,
        stateful_step_count=DEEP,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        verbosity=Verbosity.normal,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(machine, settings=quiet)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was found
        story = "\n".join(getattr(error, "__notes__", ()))
        steps = [line for line in story.splitlines() if not line.endswith("()")]
        where = traceback.format_tb(error.__traceback__)[-1]
        return "\n".join([*steps, where, f"{type(error).__name__}: {error}"])
    return ""


def main() -> None:
    """Run as the environment says, and end in one line."""
    first = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
    most = int(os.environ.get("STEPS") or 100_000)
    end_s = monotonic() + float(os.environ.get("BUDGET") or 10**9)
    print(f"SEED={first} STEPS={most}", flush=True)
    number, found = first, 0
    while COUNTS.steps < most and monotonic() < end_s:
        said = run_share(number)
        if said:
            found += 1
            print(
                f"{said}\n    MINIBROKER_MODEL_EXAMPLES={EXAMPLES} MINIBROKER_MODEL_STEPS={DEEP} "
                f"python -m pytest tests/core/test_model.py --hypothesis-seed={number}",
                flush=True,
            )
        number += 1
    met = " ".join(f"{name}={count}" for name, count in sorted(COUNTS.met.items()))
    least = min(COUNTS.pairs.items(), key=lambda pair: pair[1], default=(("", ""), 0))
    print(
        f"met: {met}; least together: {'+'.join(least[0])}={least[1]} of {len(COUNTS.pairs)} pairs"
    )
    print(f"model: steps={COUNTS.steps} seeds={first}-{number - 1} found={found}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
