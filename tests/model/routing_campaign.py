"""Steps of routing beside its model without end, one seed after the other; `make test` has 2,400 of them.

    make model STEPS=1000000 SEED=7

Ends in one line. What it finds names the seed, the step, and the steps before it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter
from random import SystemRandom
from time import monotonic

from routing_model import run

STEPS = 1_000  # of one seed


def main() -> None:
    """Run as the environment says, and end in one line."""
    first = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
    most = int(os.environ.get("STEPS") or 100_000)
    end_s = monotonic() + float(os.environ.get("BUDGET") or 10**9)
    number = first
    found, met = 0, Counter[str]()
    while (number - first) * STEPS < most and monotonic() < end_s:
        try:
            met.update(run(number, STEPS))
        except Exception:  # noqa: BLE001 - whatever it is, it is what was found
            traceback.print_exc()
            found += 1
        number += 1
    done = " ".join(f"{name}={count}" for name, count in sorted(met.items()))
    print(f"routing model: {done} steps={met.total()} seeds={first}-{number - 1} found={found}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
