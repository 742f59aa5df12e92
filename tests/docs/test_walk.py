"""docs/architecture.md says how far a call goes, and that is what it goes: nobody adds a hop unseen."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from benchmarks import walk

from support.source import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text("utf-8")
LEAST_SHARE = 0.9  # newer interpreters enter fewer functions for the same lines


def walk_says(*words: str) -> list[str]:
    """Return the lines of the walk, in a process where nothing else has been done."""
    line = [sys.executable, "-m", "benchmarks.walk", *words]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_no_call_goes_further_than_the_table_says() -> None:
    """One that became shorter is stated so: the table only goes down."""
    rows = re.findall(r"^\| (publish|receive|ack) \|" + r" (\d+) \|" * 4 + "$", TEXT, re.MULTILINE)
    assert [name for name, *_ in rows] == list(walk.OPERATIONS)
    found = [tuple(line.split()) for line in walk_says()[1:]]
    counts = {(name, side): (functions, modules) for name, side, _, functions, modules in found}
    for name, *numbers in rows:
        counted = [int(count) for side in ("client", "server") for count in counts[name, side]]
        for said, count in zip(map(int, numbers), counted, strict=True):
            assert LEAST_SHARE * said <= count <= said, (name, numbers, counted)


@pytest.mark.parametrize("name", walk.OPERATIONS)
def test_the_functions_of_a_call_are_listed_in_their_order(name: str) -> None:
    lines = walk_says("--names", name)
    assert lines[0].startswith("client aio/")
    assert any(line.startswith("server core/core.py Core.apply") for line in lines)
