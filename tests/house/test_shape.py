"""How long files and functions may be, and what they may not contain.

One test for each rule, over all files: it names those that break it. (A test for each file and rule took longer
to collect, in each process of the tests, than to run.)
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support.source import (
    ALL,
    CLIENT,
    SERVER,
    definitions,
    functions,
    name_of,
    nodes,
    offenders,
    python_files,
    text,
    tree,
)

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


def test_functions_fit_a_screen() -> None:
    """Split it, or give its reason in LONG_FUNCTIONS; one that became short loses its permission to be long."""
    lengths = {name: lines for path in ALL for name, lines in lines_of(path).items()}
    long = {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES}
    assert set(long) == set(LONG_FUNCTIONS), long


def test_files_stay_below_their_limit() -> None:
    """A module of this size holds two nouns."""
    lines = {name_of(path): len(text(path).splitlines()) for path in ALL}
    assert not {name: count for name, count in lines.items() if count > MAX_FILE_LINES}


def test_no_error_is_swallowed_whole() -> None:
    """`except Exception: pass` hides the bug that will be looked for one day."""
    assert not offenders(ALL, lambda path: map(ast.unparse, filter(_swallows, nodes(path))))


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


def test_nothing_is_left_for_later_in_a_comment() -> None:
    """What is missing is an open issue, where someone looks; a mark in a file is not."""
    assert not offenders(ALL, lambda path: UNFINISHED.findall(text(path)))


def test_every_public_name_has_a_docstring() -> None:
    """Modules, classes, functions and methods whose name starts with no underscore."""
    assert not offenders(python_files(SERVER, CLIENT), _bare)


def _bare(path: Path) -> Iterator[str]:
    if not ast.get_docstring(tree(path)):
        yield "the module itself"
    for name, node in definitions(tree(path)):
        if (
            not any(part.startswith("_") for part in name.split("."))
            and node.name not in INHERITED
            and not ast.get_docstring(node)
            and not _is_overload_or_setter(node)
        ):
            yield name


def _is_overload_or_setter(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return any(ast.unparse(each).endswith(("overload", ".setter")) for each in node.decorator_list)
