"""What is done about an operation is said by its row, nowhere else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from minibroker.contract.commands import COMMANDS
from support.source import SERVER, name_of, python_files, tree

ROOMS = ("core", "engine", "net", "access")
NAMES = frozenset(COMMANDS)


@pytest.mark.parametrize("path", python_files(*(SERVER / room for room in ROOMS)), ids=name_of)
def test_no_name_of_an_operation_is_compared(path: Path) -> None:
    """A comparison like `part.op == "publish"` is a column that the row lacks (core/verbs/operations.py)."""
    compared = [
        ast.unparse(node)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Compare)
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and each.value in NAMES
    ]
    assert not compared
