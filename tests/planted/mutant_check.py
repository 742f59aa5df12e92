"""`make check` for one file of a copy: formatting, lint, types, and the house rules that are about that file.

The types are checked as a whole. Each of the two runs of mypy has a cache of its own, which all copies share:
only what a bug changed, and what rests on it, is checked again.
"""

from __future__ import annotations

from pathlib import Path

from copied_tree import Tree
from mutant import Mutant

_LIMIT_S = 180.0


def complaint(tree: Tree, mutant: Mutant, caches: Path) -> str:
    """Return what the checkers say; nothing if all is well."""
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
