"""What tests themselves must keep to: they wait for events, and core tests touch no world."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from support.source import TESTS, imported_roots, name_of, python_files, tree

WORLD = frozenset(
    (
        "aiofiles",
        "asyncio",
        "io",
        "os",
        "pathlib",
        "shutil",
        "socket",
        "subprocess",
        "tempfile",
        "threading",
        "time",
    )
)
FILE_FIXTURES = frozenset(
    {"tmp_path", "tmp_path_factory", "tmpdir", "start_broker", "broker_server"}
)


@pytest.mark.parametrize("path", python_files(TESTS), ids=name_of)
def test_no_test_sleeps_to_wait_for_an_event(path: Path) -> None:
    """A sleep is too short on a busy machine and too long on every other; `sleep(0)` is no wait."""
    sleeps = [
        node.lineno for node in ast.walk(tree(path)) if isinstance(node, ast.Call) and _sleeps(node)
    ]
    assert not sleeps


def _sleeps(call: ast.Call) -> bool:
    if ast.unparse(call.func).rpartition(".")[2] != "sleep":
        return False
    return [ast.unparse(argument) for argument in call.args] != ["0"]


@pytest.mark.parametrize("path", python_files(TESTS / "core"), ids=name_of)
def test_core_tests_open_no_socket_and_no_file(path: Path) -> None:
    """The core is a value that a test steps; what needs a file or a loop is a test of the shell."""
    calls = {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    arguments = {node.arg for node in ast.walk(tree(path)) if isinstance(node, ast.arg)}
    assert not imported_roots(path) & WORLD
    assert "open" not in calls
    assert not arguments & FILE_FIXTURES
