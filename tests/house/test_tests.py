"""What tests themselves must keep to: they wait for events, and core tests touch no world."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support.source import TESTS, imported_roots, nodes, offenders, python_files, text

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


def test_no_test_sleeps_to_wait_for_an_event() -> None:
    """A sleep is too short on a busy machine and too long on every other; `sleep(0)` is no wait."""
    assert not offenders(python_files(TESTS), _sleeping_lines)


def _sleeping_lines(path: Path) -> Iterator[int]:
    return (node.lineno for node in nodes(path) if isinstance(node, ast.Call) and _sleeps(node))


def _sleeps(call: ast.Call) -> bool:
    if ast.unparse(call.func).rpartition(".")[2] != "sleep":
        return False
    return [ast.unparse(argument) for argument in call.args] != ["0"]


def test_the_slowest_files_are_there() -> None:
    """One that was renamed would be taken late, and the run last longer."""
    names = re.findall(r'^    "(\w+/test_\w+\.py)",$', text(TESTS / "conftest.py"), re.MULTILINE)
    assert len(names) > 20
    assert not [name for name in names if not (TESTS / name).is_file()]


def test_core_tests_open_no_socket_and_no_file() -> None:
    """The core is a value that a test steps; what needs a file or a loop is a test of the shell."""
    assert not offenders(python_files(TESTS / "core"), _world_of)


def _world_of(path: Path) -> set[str]:
    calls = {ast.unparse(node.func) for node in nodes(path) if isinstance(node, ast.Call)}
    arguments = {node.arg for node in nodes(path) if isinstance(node, ast.arg)}
    return imported_roots(path) & WORLD | calls & {"open"} | arguments & FILE_FIXTURES
