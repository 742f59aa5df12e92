"""`make compare A=REV B=REV`: whether one commit is faster than another, in the same minutes on the same machine.

Figures of two days cannot be compared: a neighbour or the clock speed moves them by more than most changes do. So
both commits are checked out side by side and measured in turn, A B A B. Each pair gives one ratio, and the ratios
of one run are what counts. Work that is not committed has a name, too: `B=$(git stash create)`.

Both sides run in the environment of this interpreter. The path decides whose code is imported, so nothing is
installed again. They are measured with the benchmarks of this checkout, or each with its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.rows import ROWS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("broker", "client")  # the folders that an installation puts on the path
MICRO_LINE = re.compile(r"(\S.*\S)\s+([\d.]+) us")
HEADS = ("row", "median A", "median B", "B/A min", "median", "max")

Figures = dict[str, float]  # by row


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two commits, checked out into a folder of its own."""

    name: str
    commit: str
    folder: Path

    def run(self, module: str, *arguments: str) -> str:
        """Run `python -m module` on the code of this commit and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment(),
            check=False,
        )
        if done.returncode:
            raise SystemExit(
                f"{module} failed on {self.name} ({self.commit[:12]}); its error stands above. If the "
                "benchmarks do not fit that commit, try --own: each side with its own benchmarks"
            )
        return done.stdout

    def environment(self) -> Mapping[str, str]:
        """Return the environment in which the packages of this commit come first."""
        path = os.pathsep.join(str(self.folder / package) for package in PACKAGES)
        return {**os.environ, "PYTHONPATH": path}

    def check(self) -> None:
        """End the program if this side would import another checkout's code."""
        code = "import minibroker, minibrokerd; print(minibroker.__file__, minibrokerd.__file__)"
        printed = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment(),
            check=True,
        ).stdout
        if printed.count(str(self.folder)) != len(PACKAGES):
            raise SystemExit(f"{self.name} would be measured with the code in {printed.strip()}")


def git(root: Path, *arguments: str) -> str:
    """Run git and return what it printed; its own message ends the program if it fails."""
    done = subprocess.run(
        ["git", *arguments], stdout=subprocess.PIPE, text=True, cwd=root, check=False
    )
    if done.returncode:
        raise SystemExit(f"git {arguments[0]} failed")
    return done.stdout.strip()


@contextmanager
def checked_out(root: Path, revisions: Sequence[str], own: bool) -> Iterator[list[Side]]:
    """Yield both sides; their folders are removed in the end.

    They lie below benchmarks/out, as `bench` syncs the disk on which it runs.
    """
    names = "AB"
    commits = [git(root, "rev-parse", "--verify", f"{each}^{{commit}}") for each in revisions]
    out = root / "benchmarks" / "out"
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="compare-", dir=out))
    sides = []
    try:
        for name, commit in zip(names, commits, strict=True):
            tree = folder / name
            git(root, "worktree", "add", "--quiet", "--detach", str(tree), commit)
            sides.append(Side(name, commit, tree))
            if not own:
                take_benchmarks(root, tree)
        yield sides
    finally:
        for name in names:
            if (folder / name).exists():
                git(root, "worktree", "remove", "--force", str(folder / name))
        shutil.rmtree(folder)


def take_benchmarks(root: Path, tree: Path) -> None:
    """Replace the benchmarks of a tree by ours: one instrument for both."""
    shutil.rmtree(tree / "benchmarks", ignore_errors=True)
    shutil.copytree(root / "benchmarks", tree / "benchmarks", ignore=shutil.ignore_patterns("out"))


def micro(side: Side) -> Figures:
    """Return microseconds a message for each part."""
    return micro_figures(side.run("benchmarks.micro"))


def micro_figures(printed: str) -> Figures:
    """Return the figures in what micro.py printed."""
    found = (MICRO_LINE.fullmatch(line.strip()) for line in printed.splitlines())
    return {re.sub(r"\s{2,}", ", ", each[1]): float(each[2]) for each in found if each}


def bench(side: Side, rows: Sequence[str]) -> Figures:
    """Return messages a second for each row of bench.py."""
    side.run("benchmarks.bench", "--repetitions", "1", *rows)
    report = json.loads((side.folder / "benchmarks" / "out" / "bench.json").read_text("utf-8"))
    return {row["name"]: row["median"] for row in report["rows"]}


def lines(pairs: Sequence[tuple[Figures, Figures]]) -> list[tuple[str, ...]]:
    """Return one line for each row that both sides have: medians, and the ratios of the pairs."""
    made = []
    for row in pairs[0][0]:
        both = [(a[row], b[row]) for a, b in pairs if row in a and row in b]
        ratios = [b / a for a, b in both if a]
        if ratios:
            medians = (median(a for a, _ in both), median(b for _, b in both))
            shown = (*medians, min(ratios), median(ratios), max(ratios))
            made.append((row, *(f"{figure:,.3f}" for figure in shown)))
    return made


def print_table(rows: Sequence[Sequence[str]], heads: Sequence[str] = HEADS) -> None:
    """Print rows under their heads, figures to the right."""
    table = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *rest]))


def compare(
    root: Path, revisions: Sequence[str], work: Sequence[str], pairs: int, own: bool
) -> None:
    """Measure both revisions in turn and print the table."""
    is_micro = list(work) == ["micro"]
    unit = "us a message, less is better" if is_micro else "messages/s, more is better"
    measured = []
    with checked_out(root, revisions, own) as (a, b):
        for side in (a, b):
            side.check()
        for number in range(1, pairs + 1):
            print(f"pair {number} of {pairs} ...", file=sys.stderr, flush=True)
            measured.append((micro(a), micro(b)) if is_micro else (bench(a, work), bench(b, work)))
    print(f"A: {revisions[0]} ({a.commit[:12]})   B: {revisions[1]} ({b.commit[:12]})")
    print(f"{unit}; {pairs} pairs, in turn\n")
    print_table(lines(measured))
    print(
        "\nOnly ratios within one run count: the medians move with the machine from run to run.\n"
        "Where they lie on both sides of 1 nothing was shown; more --pairs may."
    )


def main() -> None:
    """Run as `python -m benchmarks.compare REV_A REV_B`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("revisions", nargs=2, metavar="REV", help="what git calls the commits")
    names = ["micro", *(row.name for row in ROWS)]
    parser.add_argument(
        "--work", nargs="+", default=["micro"], metavar="WORK", help=", ".join(names)
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--own", action="store_true", help="measure each with its own benchmarks")
    options = parser.parse_args()
    if unknown := set(options.work) - set(names):
        parser.error(f"no work is called {', '.join(sorted(unknown))}")
    if "micro" in options.work and len(options.work) > 1:
        parser.error("micro and the rows of bench have different units: compare them one by one")
    if options.pairs < 1:
        parser.error("--pairs must be at least 1")
    compare(ROOT, options.revisions, options.work, options.pairs, options.own)


if __name__ == "__main__":
    main()
