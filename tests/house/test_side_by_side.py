"""What `make test` rests on: of tests that run in several processes each one is told of, however it ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.source import TESTS

PLUGIN = """
import pytest
from support.side_by_side import SideBySide

def pytest_configure(config):
    config.pluginmanager.register(SideBySide(3))
"""
FILES = {
    "test_ends": """
import atexit, os, pytest

def test_leaves_something_for_the_end():
    atexit.register(os.mkdir, "ended")

def test_passes(tmp_path):
    print("what passed has said")

def test_fails(tmp_path):
    print("what failed has said")
    assert tmp_path.name == "nothing"

@pytest.mark.parametrize("number", range(3))
def test_says(number):
    assert number != 1

def test_skips():
    pytest.skip("for a reason")
""",
    "test_dies": """
import os

def test_before():
    pass

def test_dies():
    os._exit(7)

def test_behind():
    pass
""",
    "test_broken": """
import pytest

@pytest.fixture
def broken():
    yield
    raise OSError("at its end")

def test_of_it(broken):
    pass
""",
}

TALKS = """
import os, pytest

@pytest.mark.parametrize("number", range(500))
def test_talks(number):
    for word in ("NAME ", "says ", f"{number}."):
        os.write(1, word.encode())
    assert number % 100 != 99
"""


def prepare(folder: Path, files: dict[str, str]) -> None:
    """Write files of tests, which are run in three processes."""
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope=function\n")
    (folder / "conftest.py").write_text(PLUGIN)
    for name, source in files.items():
        (folder / f"{name}.py").write_text(source)


def run(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a folder that has nothing to do with this one."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS), "COLUMNS": "120"},
    )


def test_every_end_of_a_test_is_told(tmp_path: Path) -> None:
    """Those of a process that died, too, and those that it did not come to; output is that of the test."""
    prepare(tmp_path, FILES)
    ended = run(tmp_path)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    said = ended.stdout
    for line in (
        "FAILED test_ends.py::test_fails - AssertionError",
        "FAILED test_ends.py::test_says[1] - assert 1 != 1",
        "FAILED test_dies.py::test_dies - its process ended with exit code 7",
        "FAILED test_dies.py::test_behind - no process came to it",
        "ERROR test_broken.py::test_of_it - OSError: at its end",
        "for a reason",
        "4 failed, 6 passed, 1 skipped, 1 error in",
    ):
        assert line in said, said
    assert (tmp_path / "ended").is_dir()
    assert "what failed has said" in said
    assert "what passed has said" not in said
    (tmp_path / "ended").rmdir()
    assert "stopping after 1 failures" in run(tmp_path, "--exitfirst").stdout


def test_each_keeps_what_it_has_printed_to_itself(tmp_path: Path) -> None:
    """Two files at once say 500 things each; what each hundredth says is shown."""
    prepare(tmp_path, {f"test_{name}": TALKS.replace("NAME", name) for name in ("ann", "bob")})
    said = run(tmp_path).stdout
    for name in ("ann", "bob"):
        assert re.findall(f"{name} says [0-9]+.", said) == [
            f"{name} says {n}." for n in (99, 199, 299, 399, 499)
        ]
