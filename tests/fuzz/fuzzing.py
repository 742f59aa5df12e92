"""Fuzzing of what reads bytes from outside: the server's frames, the client's, the log.

    make fuzz BUDGET=600 SEED=7
    make fuzz INPUT=server:94c400c400c400c400

Each target runs in a process of its own under atheris, guided by the coverage of its code; where that cannot be
installed, Hypothesis makes the inputs out of the same corpus. The last figures are those of the hostile frames in
tests/server/hostile.py: what each costs from its first byte to the answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from random import SystemRandom
from typing import Final

from targets import NAMES
from watch import Figures, Watch

from minibrokerd.process import logs

HERE: Final = Path(__file__).parent
PROCESSES: Final = 2
SHARE: Final = {"server": 0.3, "client": 0.2, "log": 0.5}  # of the budget of all processes
LARGEST_SEED: Final = 2**31 - 1
SHOWN: Final = 10


def fuzz_apart(name: str, seed: int, budget_s: float) -> Figures:
    """Fuzz one target in a process of its own and return its figures."""
    with tempfile.TemporaryDirectory(prefix="minibroker-fuzz-") as directory:
        result = Path(directory) / "figures"
        command = [
            sys.executable,
            str(HERE / "fuzz_one.py"),
            name,
            str(seed),
            str(budget_s),
            str(result),
        ]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if not result.exists():
            print(ended.stdout, ended.stderr, sep="\n")
            raise SystemExit(f"fuzzing {name} ended with {ended.returncode} before its time")
        figures = json.loads(result.read_text())
    figures["faults"] = [tuple(fault) for fault in figures["faults"]]
    return Figures(**figures)


def run_campaign(seed: int, budget_s: float) -> Figures:
    """Fuzz all targets on all processors for `budget_s`, and return the sum."""
    total = Figures()
    with ThreadPoolExecutor(PROCESSES) as pool:
        shares = [PROCESSES * SHARE[name] * budget_s for name in NAMES]
        for figures in pool.map(fuzz_apart, NAMES, [seed] * len(NAMES), shares):
            total.add(figures)
    return total


def hostile_costs() -> str:
    """Return the dearest of the hostile frames, in time and memory, as figures."""
    from hand import Hand
    from hostile import COSTLY
    from test_hostile_frames import ALL, best_s, chunks_of, copy_s, peak_bytes

    logs.configure("text", "error")  # the refusals are what is asked for
    hand = Hand()
    ms, kib = 0.0, 0.0
    names = [name for name in ALL if name not in COSTLY]
    for name in names:
        chunks = chunks_of(ALL[name]())
        ms = max(ms, (best_s(hand.login, chunks) - copy_s(chunks)) * 1e3)
        kib = max(kib, (peak_bytes(hand.login, chunks) - sum(map(len, chunks))) / 1024)
    return f"hostile={len(names)} hostile_ms={ms:.2f} hostile_kib={kib:.0f}"


def main() -> None:
    """Run one campaign as the environment says, and end in one line."""
    if given := os.environ.get("INPUT"):
        name, _, data = given.partition(":")
        watch = Watch(name)
        watch(bytes.fromhex(data))
        figures = watch.figures
    else:
        seed = int(os.environ.get("SEED") or SystemRandom().randrange(LARGEST_SEED))
        budget_s = float(os.environ.get("BUDGET") or 600)
        engine = "atheris" if find_spec("atheris") else "Hypothesis, for atheris is not installed"
        print(f"SEED={seed} BUDGET={budget_s:.0f}, inputs by {engine}", flush=True)
        figures = run_campaign(seed, budget_s)
    for data, what in figures.faults[:SHOWN]:
        print(f"{what}\n  make fuzz INPUT={data}")
    print(figures, hostile_costs())
    sys.exit(figures.failed)


if __name__ == "__main__":
    main()
