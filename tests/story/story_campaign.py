"""The story again and again, out of the wheel in an environment of its own, for as long as BUDGET says.

make story SEED=7 BUDGET=600         REQUESTS=500 of them each time; WHEEL=0 takes this checkout instead
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from random import Random, SystemRandom
from time import monotonic

from story import Tools, told
from support.source import ROOT

CHECKOUT = Tools(sys.executable, (sys.executable, "-m", "minibrokerd"))
NEEDED = ("flask>=3.0", "django>=5.1", "gunicorn>=23.0")


def installed(folder: Path) -> Tools:
    """Build the wheel, and install it with what the applications need into an empty environment."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder / "dist", ROOT], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    venv.create(folder / "environment", with_pip=False)
    home = folder / "environment" / "bin"
    subprocess.run([*pip, f"--python={home / 'python'}", "install", wheel, *NEEDED], check=True)
    return Tools(str(home / "python"), (str(home / "minibroker"),))


def main() -> None:
    """Run stories as the environment says; one line for each, and a last one."""
    seed = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
    budget_s = float(os.environ.get("BUDGET") or 600)
    requests = int(os.environ.get("REQUESTS") or 500)
    end_s = monotonic() + budget_s
    folder = Path(tempfile.mkdtemp(prefix="minibroker-story-"))
    tools = CHECKOUT if os.environ.get("WHEEL") == "0" else installed(folder)
    print(f"story: SEED={seed} BUDGET={budget_s:.0f} REQUESTS={requests} in {folder}", flush=True)
    seeds, stories, totals, bad = Random(seed), 0, [0] * 5, 0
    while stories == 0 or (monotonic() < end_s and not bad):
        its_seed = seed if stories == 0 else seeds.randrange(2**32)
        stories += 1
        place = folder / f"story-{its_seed}"
        place.mkdir()
        outcome = told(place, its_seed, requests, tools)
        print(f"seed={its_seed} {outcome}", flush=True)
        for fault in (*outcome.faults, *outcome.failed):
            print(f"  {fault}", flush=True)
        bad += bool(outcome.faults or outcome.failed or outcome.requests != requests)
        each = (outcome.requests, outcome.messages, outcome.lost, outcome.duplicates)
        totals = [a + b for a, b in zip(totals, (*each, outcome.running_at_kills), strict=True)]
        if not bad:
            shutil.rmtree(place)
    names = ("answered", "messages", "lost", "duplicates", "running_at_kills")
    said = " ".join(f"{name}={value}" for name, value in zip(names, totals, strict=True))
    print(f"story: stories={stories} {said} bad={bad}")
    if not bad:
        shutil.rmtree(folder)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
