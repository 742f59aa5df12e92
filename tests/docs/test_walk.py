"""docs/architecture.md says how far a call goes, and that is what it goes: nobody adds a hop unseen."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest
from benchmarks import walk

from support.source import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text("utf-8")
LEAST_SHARE = 0.9  # newer interpreters enter fewer functions for the same lines


def test_no_call_goes_further_than_the_table_says() -> None:
    """One that became shorter is stated so: the table only goes down."""
    rows = re.findall(r"^\| (publish|receive|ack) \|" + r" (\d+) \|" * 4 + "$", TEXT, re.MULTILINE)
    assert [name for name, *_ in rows] == list(walk.OPERATIONS)
    found = asyncio.run(walk.walked())
    for name, *numbers in rows:
        sides = [found[name][side] for side in ("client", "server")]
        counted = [count for side in sides for count in (side.functions, side.modules)]
        for said, count in zip(map(int, numbers), counted, strict=True):
            assert LEAST_SHARE * said <= count <= said, (name, numbers, counted)


@pytest.mark.parametrize("name", walk.OPERATIONS)
def test_the_functions_of_a_call_are_listed_in_their_order(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["walk", "--names", name])
    walk.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("client aio/")
    assert any(line.startswith("server core/core.py Core.apply") for line in lines)
