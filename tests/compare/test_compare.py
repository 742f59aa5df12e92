"""`benchmarks.compare`, on a small repository whose two commits print figures that are known."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from benchmarks.compare import compare, lines, micro_figures

MICRO = """import minibroker, minibrokerd
print(f"frames of 1      core: publish                {minibroker.COST:8.3f} us")
print(f"frames of 1      core: ack                    {minibrokerd.COST:8.3f} us")
"""
GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits: the client costs 2 us and then 1 us, the server 3 us and then 6 us."""
    subprocess.run([*GIT, "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "micro.py").write_text(MICRO)
    for client, server in ((2, 3), (1, 6)):
        for package, cost in (("client/minibroker", client), ("broker/minibrokerd", server)):
            (tmp_path / package).mkdir(parents=True, exist_ok=True)
            (tmp_path / package / "__init__.py").write_text(f"COST = {cost}\n")
        subprocess.run([*GIT, "add", "."], cwd=tmp_path, check=True)
        subprocess.run([*GIT, "commit", "--quiet", "-m", "x"], cwd=tmp_path, check=True)
    return tmp_path


def test_each_side_runs_its_own_commit(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is left of the two folders."""
    compare(repository, ("HEAD~1", "HEAD"), ("micro",), pairs=2, own=False)
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.startswith("frames")]
    assert [row[-5:] for row in rows] == [
        ["2.000", "1.000", "0.500", "0.500", "0.500"],
        ["3.000", "6.000", "2.000", "2.000", "2.000"],
    ]
    assert "ratios within one run" in printed
    listed = subprocess.run(
        ["git", "worktree", "list"], cwd=repository, capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) == 1
    assert list((repository / "benchmarks" / "out").iterdir()) == []


def test_a_side_that_fails_is_named_and_removed(repository: Path) -> None:
    """The benchmarks of this checkout may not fit an old commit."""
    (repository / "benchmarks" / "micro.py").write_text("import minibroker.gone\n")
    with pytest.raises(SystemExit, match=r"failed on A .*--own"):
        compare(repository, ("HEAD~1", "HEAD"), ("micro",), pairs=1, own=False)
    assert list((repository / "benchmarks" / "out").iterdir()) == []


def test_each_side_can_bring_its_own_benchmarks(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of its commit, whatever lies in this checkout."""
    (repository / "benchmarks" / "micro.py").write_text("import minibroker.gone\n")
    compare(repository, ("HEAD", "HEAD"), ("micro",), pairs=1, own=True)
    assert "1.000" in capsys.readouterr().out


def test_ratios_are_of_pairs_and_rows_of_one_side_stay_out() -> None:
    """The median of the ratios, not the ratio of the medians."""
    pairs = [
        ({"x": 1.0, "old": 1.0}, {"x": 2.0}),
        ({"x": 4.0}, {"x": 4.0}),
        ({"x": 2.0}, {"x": 1.0}),
    ]
    assert lines(pairs) == [("x", "2.000", "2.000", "0.500", "1.000", "2.000")]


def test_what_micro_prints_is_read_back() -> None:
    """Lines that are no figures are left out."""
    assert micro_figures("frames of 1   core: ack     1.250 us\nand this\n") == {
        "frames of 1, core: ack": 1.25
    }
