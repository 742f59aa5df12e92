"""What tests themselves must keep to: they wait for events, and core tests touch no world."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support.source import TESTS, Function, imported_roots, nodes, offenders, python_files, text

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
ASSERTING = frozenset({"raises", "fail", "AssertionError"})  # of pytest, or raised
# Work that is killed in its middle; nothing waits for its end.
TAKE_THEIR_TIME = (
    "tests/contrib/test_celery_chords_killed.py",
    "tests/contrib/test_killed_libraries.py",
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


def test_no_program_that_a_test_writes_sleeps_to_wait_for_an_event() -> None:
    """It may look again and again, have no end, or be work that takes its time: those files are named."""
    found = offenders(python_files(TESTS), _sleeping_sources)
    assert sorted(found) == sorted(TAKE_THEIR_TIME), found


def _sleeping_sources(path: Path) -> Iterator[int]:
    for node in nodes(path):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and "sleep(" in node.value
        ):
            for call in _sleeps_outside_loops(node.value):
                yield node.lineno + call.lineno - 1


def _sleeps_outside_loops(source: str) -> list[ast.Call]:
    """Return the calls of a source that sleep; none of what is no Python."""
    try:
        whole = ast.parse(source)
    except SyntaxError:
        return []
    looking = {
        inner for loop in ast.walk(whole) if isinstance(loop, ast.While) for inner in ast.walk(loop)
    }
    calls = (node for node in ast.walk(whole) if isinstance(node, ast.Call))
    return [call for call in calls if call not in looking and _sleeps(call) and not _for_ever(call)]


def _for_ever(call: ast.Call) -> bool:
    return [ast.unparse(argument) for argument in call.args] == ["3600"]


def test_each_test_asserts_something() -> None:
    """Itself, or something that it calls: what only must not raise says nothing of what it did."""
    functions = [
        (path, node)
        for path in python_files(TESTS)
        for node in nodes(path)
        if isinstance(node, Function)
    ]
    calls = {node: _names_called(node) for _, node in functions}
    asserting = {node.name for _, node in functions if _asserts(node)} | ASSERTING
    grown = True
    while grown:
        more = {node.name for _, node in functions if calls[node] & asserting} - asserting
        asserting |= more
        grown = bool(more)
    assert not [
        f"{path}:{node.lineno} {node.name}"
        for path, node in functions
        if node.name.startswith("test_") and path.name.startswith("test_")
        if not _asserts(node) and not calls[node] & asserting
    ]


def _asserts(function: ast.AST) -> bool:
    return any(isinstance(node, ast.Assert) for node in ast.walk(function))


def _names_called(function: ast.AST) -> set[str]:
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return {getattr(call, "attr", getattr(call, "id", "")) for call in calls}


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
