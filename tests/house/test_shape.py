"""How long files and functions may be, and what they may not contain."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support.source import ALL, CLIENT, SERVER, definitions, functions, name_of, python_files, tree

MAX_FUNCTION_LINES = 70
MAX_FILE_LINES = 500

# Longer functions that are worth it: "file:qualified name" and the reason (for speed: the gain).
LONG_FUNCTIONS: dict[str, str] = {}

# Methods whose meaning is fixed by the base class that calls them.
INHERITED = frozenset(
    (
        "connection_made",
        "connection_lost",
        "data_received",
        "eof_received",
        "pause_writing",
        "resume_writing",
        "run",
    )
)

UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


def lines_of(path: Path) -> dict[str, int]:
    """Return the length of every function of a file, docstring included, decorators not."""
    return {
        f"{name_of(path)}:{name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for name, node in functions(path)
    }


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_functions_fit_a_screen(path: Path) -> None:
    """Split it, or give its reason in LONG_FUNCTIONS."""
    long = {name: lines for name, lines in lines_of(path).items() if lines > MAX_FUNCTION_LINES}
    assert not set(long) - set(LONG_FUNCTIONS)


def test_every_exception_is_still_needed() -> None:
    """A function that became short loses its permission to be long: the ratchet turns one way."""
    lengths = {name: lines for path in ALL for name, lines in lines_of(path).items()}
    stale = [name for name in LONG_FUNCTIONS if lengths.get(name, 0) <= MAX_FUNCTION_LINES]
    assert not stale


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_files_stay_below_their_limit(path: Path) -> None:
    """A module of this size holds two nouns."""
    assert len(path.read_text("utf-8").splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_no_error_is_swallowed_whole(path: Path) -> None:
    """`except Exception: pass` hides the bug that will be looked for one day."""
    swallowed = [ast.unparse(node) for node in ast.walk(tree(path)) if _swallows(node)]
    assert not swallowed


def _swallows(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        return _is_wide(node.type) and all(_is_nothing(statement) for statement in node.body)
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return any(_is_wide(argument) for argument in node.args)
    return False


def _is_wide(type_: ast.expr | None) -> bool:
    if isinstance(type_, ast.Tuple):
        return any(_is_wide(each) for each in type_.elts)
    return type_ is None or ast.unparse(type_) in {"Exception", "BaseException"}


def _is_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass | ast.Continue) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_nothing_is_left_for_later_in_a_comment(path: Path) -> None:
    """What is missing is an open issue, where someone looks; a mark in a file is not."""
    assert not UNFINISHED.findall(path.read_text("utf-8"))


@pytest.mark.parametrize("path", python_files(SERVER, CLIENT), ids=name_of)
def test_every_public_name_has_a_docstring(path: Path) -> None:
    """Modules, classes, functions and methods whose name starts with no underscore."""
    bare = [
        name
        for name, node in definitions(tree(path))
        if not any(part.startswith("_") for part in name.split("."))
        and node.name not in INHERITED
        and not ast.get_docstring(node)
        and not _is_overload_or_setter(node)
    ]
    assert ast.get_docstring(tree(path)), "the module has no docstring"
    assert not bare


def _is_overload_or_setter(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return any(ast.unparse(each).endswith(("overload", ".setter")) for each in node.decorator_list)
