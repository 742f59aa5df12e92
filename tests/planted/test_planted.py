"""The short version of `make planted`: every row still matches, and three bugs are planted and found."""

from __future__ import annotations

from pathlib import Path

import pytest
from layers import is_harness
from mutant import Mutant, Stale
from planted_campaign import run_campaign
from planted_table import BY_NAME, MUTANTS

from support.source import ROOT, TESTS

SEED = 1
PATIENCE_S = 600  # for what takes about 16 s of one core: other processes may have nearly all of it
QUICK = ("reuse token after restart", "skip directory sync", "expiry before queued acks")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_row_stands_in_its_file_once(mutant: Mutant) -> None:
    """Else the code has moved on, and the bug with it: the row is to be written anew."""
    assert mutant.text_in(ROOT) != (ROOT / mutant.file).read_text("utf-8")
    single = [layer for layer in mutant.layers if not is_harness(layer)]
    assert mutant.layers
    assert all((TESTS / layer.partition("::")[0]).is_file() for layer in single)


def test_a_row_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    """A table that is stale would plant nothing, and find that all is well."""
    (tmp_path / "broker" / "minibrokerd").mkdir(parents=True)
    file = tmp_path / "broker" / "minibrokerd" / "some.py"
    row = Mutant("some", "some.py", "one", "two", ("model",), "nothing")
    for text in ("none", "one and one"):
        file.write_text(text.replace("none", "zero"))
        with pytest.raises(Stale, match=r"stands [02] times"):
            row.text_in(tmp_path)


@pytest.mark.timeout(2 * PATIENCE_S)
def test_planted_bugs_are_found_and_a_change_that_is_none_survives(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In copies, by the simulation, crash states and a test; a copy without a bug passes all of these."""
    row = BY_NAME[QUICK[-1]]
    harmless = Mutant(
        "harmless: a path is separated by what stands in its name",
        row.path,
        row.old,
        f"        assert turns >= 0\n{row.old}",
        row.layers,
        "nothing",
    )
    rows = [*(BY_NAME[name] for name in QUICK), harmless]
    figures = run_campaign(rows, SEED, PATIENCE_S, 1, check=False, limit_s=PATIENCE_S)
    said = capsys.readouterr().out
    assert sorted(figures.caught) == sorted(QUICK), said
    assert figures.survived == [harmless.name], said
    assert (figures.wrong, figures.clean) == ([], True), said
    assert figures.failed, "a survivor fails a campaign"
