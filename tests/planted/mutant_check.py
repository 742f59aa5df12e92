"""`make check` for one file of a copy: formatting, lint, types, and the house rules that are about that file.

The types are checked as a whole. All bugs are planted in the same copy, one after the other, and each of the two
runs of mypy has a cache of its own: only what a bug changed, and what rests on it, is checked again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from copied_tree import Tree
from mutant import Mutant

_LIMIT_S: Final = 300.0


def complaint(tree: Tree, mutant: Mutant, caches: Path) -> str:
    """Plant a bug in a copy, and take it out again; return what the checkers say, nothing if all is well.

    Raises:
        Stale: the text of the row is not there.
    """
    file = tree.root / mutant.file
    text, planted = file.read_text("utf-8"), mutant.text_in(tree.root)
    try:
        _write(file, planted)
        return _complaint(tree, mutant, caches)
    finally:
        _write(file, text)


def _write(file: Path, text: str) -> None:
    file.unlink()  # a link that other copies share
    file.write_text(text, "utf-8")


def _complaint(tree: Tree, mutant: Mutant, caches: Path) -> str:
    mypy = ["-m", "mypy", "--no-error-summary"]
    rules = f"{mutant.file} or test_documents.py or test_imports.py"
    for arguments in (
        ["-m", "ruff", "format", "--check", "--quiet", mutant.file],
        ["-m", "ruff", "check", "--quiet", "--no-cache", mutant.file],
        [*mypy, "--cache-dir", str(caches / "product")],
        [*mypy, "--cache-dir", str(caches / "tests"), "--config-file", "tests/mypy.ini"],
        ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "tests/house", "-k", rules],
    ):
        ended = tree.run(arguments, _LIMIT_S)
        if ended.status != 0:
            return f"{' '.join(arguments)}\n{ended.output[-2_000:]}"
    return ""
