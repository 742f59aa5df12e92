"""Plants bugs, one at a time in a copy of the project, and sees whether the tests find them.

    make planted BUDGET=1800 SEED=1
    make planted ONLY="skip directory sync"

Each copy must import, and pass what `make check` asks of its file: a bug that a linter sees is none.
Then its layers look for it, cheapest first, until one finds it, and at last those that found something
look at a copy without a bug. Bugs for which the budget is too short are named, and not counted.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Final

from copied_tree import Tree
from layers import WORLDS, Broken, Found, is_harness, look
from mutant import Mutant, Stale
from mutant_check import complaint
from planted_table import BY_NAME, MUTANTS

LIMIT_S: Final = (
    180.0  # for all layers of one bug: three times what it may take where nothing else runs
)
CLEAN_LIMIT_S: Final = 300.0  # for one layer on the copy without a bug


@dataclass(slots=True)
class Figures:
    """What a campaign came to; `str` is its last line."""

    caught: dict[str, str] = field(default_factory=dict)  # name of the bug: layer that found it
    worlds: int = 1  # of the simulation, until the last bug was found that it found
    survived: list[str] = field(default_factory=list)
    wrong: list[str] = field(
        default_factory=list
    )  # stale rows, bugs that are no bugs, layers that broke
    left: list[str] = field(default_factory=list)  # for want of time
    clean: bool = True
    began_s: float = field(default_factory=monotonic)

    @property
    def failed(self) -> bool:
        """Whether the tests, or the table, have a hole."""
        return bool(self.survived or self.wrong or not self.clean)

    def __str__(self) -> str:
        planted = len(self.caught) + len(self.survived) + len(self.wrong)
        return (
            f"planted: planted={planted} caught={len(self.caught)} survived={len(self.survived)} "
            f"clean={'ok' if self.clean else 'failed'} seconds={monotonic() - self.began_s:.0f}"
        )


class Campaign:
    """A copy of the project, and what is done to copies of that."""

    def __init__(
        self, folder: Path, seed: int, budget_s: float, *, check: bool, limit_s: float
    ) -> None:
        self.seed = seed
        self._limit_s = limit_s
        self.figures = Figures()
        self._folder = folder
        self._end_s = monotonic() + budget_s
        self._check = check
        self._check_lock = Lock()
        self._lock = Lock()  # of what is printed
        self._base = Tree.of_project(folder / "clean")
        self._checked = self._base.linked(folder / "checked") if check else self._base

    def plant(self, mutant: Mutant) -> None:
        """Plant one bug, and let its layers look for it."""
        if monotonic() > self._end_s:
            self.figures.left.append(mutant.name)
            return
        began_s = monotonic()
        try:
            found = self._find(mutant)
        except (Stale, Broken) as error:
            self.figures.wrong.append(mutant.name)
            self._say(f"wrong {mutant.name}: {error}")
            return
        seconds = monotonic() - began_s
        if found is None:
            self.figures.survived.append(mutant.name)
            layers = ", ".join(mutant.layers)
            self._say(
                f"survived {mutant.name}: {mutant.broken}; not found by {layers} in {seconds:.0f} s\n"
                f'    make planted SEED={self.seed} ONLY="{mutant.name}"'
            )
            return
        layer, (by, seed) = found
        self.figures.caught[mutant.name] = layer
        if layer in WORLDS:
            self.figures.worlds = max(self.figures.worlds, seed - self.seed + 1)
        self._say(f"caught {mutant.name}: layer={layer} seed={seed} by={by} in {seconds:.1f} s")

    def _find(self, mutant: Mutant) -> tuple[str, Found] | None:
        # Of a folder in a path of imports nothing may be a separator.
        tree = self._base.with_bug(self._folder / re.sub(r"\W+", "-", mutant.name), mutant)
        try:
            if not tree.imports():
                raise Broken("the copy cannot be imported")
            if self._check:
                with self._check_lock:
                    said = complaint(self._checked, mutant, self._folder / "mypy")
                if said:
                    raise Broken(f"`make check` sees it:\n{said}")
            end_s = monotonic() + self._limit_s
            for layer in mutant.layers:
                found = look(tree, layer, self.seed, end_s - monotonic())
                if found is not None:
                    return layer, found
            return None
        finally:
            tree.remove()

    def look_at_clean(self) -> None:
        """Let every layer that found something look at the copy without a bug: it must find nothing."""
        for layer in sorted(set(self.figures.caught.values())):
            try:
                found = look(self._base, layer, self.seed, CLEAN_LIMIT_S, self.figures.worlds)
            except Broken as error:
                found = Found(str(error), self.seed)
            if found is not None:
                self.figures.clean = False
                self._say(f"clean failed: layer={layer} seed={found.seed} by={found.by}")

    def _say(self, text: str) -> None:
        with self._lock:
            print(text, flush=True)


def run_campaign(
    mutants: Iterable[Mutant],
    seed: int,
    budget_s: float,
    processes: int,
    *,
    check: bool,
    limit_s: float = LIMIT_S,
) -> Figures:
    """Plant these bugs, each in a copy of its own, and return what came of it."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        campaign = Campaign(Path(folder), seed, budget_s, check=check, limit_s=limit_s)
        with ThreadPoolExecutor(processes) as pool:
            futures: list[Future[None]] = [pool.submit(campaign.plant, each) for each in mutants]
            for future in futures:
                future.result()
        campaign.look_at_clean()
    return campaign.figures


def main() -> None:
    """Run as the environment says, and end in one line."""
    seed = int(os.environ.get("SEED") or 1)
    budget_s = float(os.environ.get("BUDGET") or 1_800)
    processes = int(os.environ.get("PROCESSES") or os.cpu_count() or 1)
    only = os.environ.get("ONLY")
    print(f"SEED={seed} BUDGET={budget_s:.0f}", flush=True)
    if only and only not in BY_NAME:
        sys.exit(f"there is no bug {only!r}; there are: {', '.join(BY_NAME)}")
    mutants = [BY_NAME[only]] if only else MUTANTS
    check = os.environ.get("CHECK") != "0"
    figures = run_campaign(mutants, seed, budget_s, processes, check=check)
    if figures.left:
        print(f"no time was left for {len(figures.left)}: {', '.join(figures.left)}")
    by_harness = sum(map(is_harness, figures.caught.values()))
    print(f"{by_harness} by the harness, {len(figures.caught) - by_harness} by single tests")
    print(figures)
    sys.exit(figures.failed)


if __name__ == "__main__":
    main()
