"""The project's own source as data, for the house rules."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "broker" / "minibrokerd"
CLIENT = ROOT / "client" / "minibroker"
CORE = SERVER / "core"
TESTS = ROOT / "tests"

Function = ast.FunctionDef | ast.AsyncFunctionDef
Offence = TypeVar("Offence")
Definition = Function | ast.ClassDef


def sentence_of(folder: Path) -> str:
    """Return the first paragraph of what a package says at its door, in one line."""
    text = ast.get_docstring(tree(folder / "__init__.py")) or ""
    return " ".join(text.split("\n\n")[0].split())


def python_files(*folders: str | Path) -> list[Path]:
    """Return all Python files below these folders of the project, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


ALL = python_files("broker", "client", "tests", "benchmarks", "examples", "docs")


def name_of(path: Path) -> str:
    """Return the path as the house rules print it and their allow lists write it."""
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(text(path), str(path))


@cache
def text(path: Path) -> str:
    """Return what a file says."""
    return path.read_text("utf-8")


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return all nodes of the syntax tree of a file."""
    return tuple(ast.walk(tree(path)))


def offenders(
    files: Iterable[Path], rule: Callable[[Path], Iterable[Offence]]
) -> dict[str, list[Offence]]:
    """Return what `rule` finds in these files, by their names; files that keep it are left out."""
    offences = {name_of(path): list(rule(path)) for path in files}
    return {name: found for name, found in offences.items() if found}


@cache
def imported(path: Path) -> set[str]:
    """Return the dotted names of all modules that a file imports, wherever the statement stands.

    `from a import b` gives `a` and `a.b`, since b may be a module.
    """
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def names_in(path: Path) -> set[str]:
    """Return every name that stands in a file, imported ones too: no strings, no comments."""
    return {
        value
        for node in ast.walk(tree(path))
        for field in ("id", "attr", "arg", "name", "module")
        if isinstance(value := getattr(node, field, None), str)
    }


def imported_roots(path: Path) -> set[str]:
    """Return the top-level packages that a file imports."""
    return {name.partition(".")[0] for name in imported(path)}


def circles(package: Path) -> list[set[str]]:
    """Return the modules of a package that import each other, in groups, named as below the package."""
    names = {
        ".".join(path.relative_to(package).with_suffix("").parts): path
        for path in python_files(package)
    }
    reached: dict[str, set[str]] = {
        name: {other.removeprefix(f"{package.name}.") for other in imported(path)}
        & (names.keys() - {name})
        for name, path in names.items()
    }
    for middle in names:  # whatever can be reached through one more module
        for name in names:
            if middle in reached[name]:
                reached[name] |= reached[middle]
    groups = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in names
        if name in reached[name]
    }
    return sorted((set(group) for group in groups), key=min)


def functions(path: Path) -> Iterator[tuple[str, Function]]:
    """Yield every function of a file with its qualified name, nested ones too."""
    for name, node in definitions(tree(path), nested=True):
        if not isinstance(node, ast.ClassDef):
            yield name, node


def definitions(
    parent: ast.Module | Definition, prefix: str = "", *, nested: bool = False
) -> Iterator[tuple[str, Definition]]:
    """Yield the classes and functions in `parent` with qualified names; methods are included.

    What is defined inside a function is yielded only if `nested` is true.
    """
    for node in _statements(parent):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}{node.name}"
            yield name, node
            if nested or isinstance(node, ast.ClassDef):
                yield from definitions(node, f"{name}.", nested=nested)


def _statements(parent: ast.AST) -> Iterator[ast.AST]:
    # Through `if` and `try`, where a definition may stand, but not into definitions.
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.expr):  # most of all nodes, and none of them defines anything
            continue
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _statements(node)
