"""Copies of the project in which a bug can be planted: hard links, but for the file that has it.

Every command runs in the copy, with the interpreter of the project and the copy in front of its path, so that
what is imported, and what is started as a broker, is the copy.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from mutant import Mutant

from support.source import ROOT

PARTS: Final = (
    "broker", "client", "tests", "docs", "examples", "benchmarks", "pyproject.toml", "protocol.md",
    "README.md", "CHANGELOG.md", "LICENSE", "Makefile", "Dockerfile",
)  # fmt: skip
MADE: Final = (".mypy_cache", "out", "data")
FOLDERS: Final = (
    "core",
    "cuts",
    "sim",
    "replicated",
    "planted",
)  # of the tests, whose modules are imported
IMPORTS: Final = "import minibrokerd.serving.server, minibrokerd.cli.main, minibroker"


class Ended(NamedTuple):
    """How a command ended; `status` is None if it took too long."""

    status: int | None
    output: str


class Tree:
    """One copy of the project, and what runs in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        path = [root / "broker", root / "client", root / "tests"]
        path += [root / "tests" / folder for folder in FOLDERS]
        self._environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}

    @classmethod
    def of_project(cls, root: Path) -> Tree:
        """Copy the project as it is now, compiled, so that the copies of it need not compile it again."""
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns(*MADE))
            else:
                shutil.copy2(ROOT / part, root / part)
        tree = cls(root)
        tree.run(["-m", "compileall", "-q", "broker", "client", "tests"], 120)
        return tree

    def with_bug(self, root: Path, mutant: Mutant) -> Tree:
        """Return a copy of this tree in which a bug is planted.

        Raises:
            Stale: the text of the row is not there.
        """
        text = mutant.text_in(self.root)
        tree = self.linked(root)
        file = root / mutant.file
        file.unlink()  # the link, not what it shares with the others
        file.write_text(text, "utf-8")
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
            compiled.unlink()
        return tree

    def linked(self, root: Path) -> Tree:
        """Return a copy of this tree that shares every file with it."""
        shutil.copytree(self.root, root, copy_function=os.link)
        return Tree(root)

    def remove(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self.root)

    def run(self, arguments: Sequence[str], limit_s: float, **environment: str) -> Ended:
        """Run the project's interpreter in the copy; what takes longer is killed, and its children."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.root,
            env=self._environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=max(limit_s, 0.1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return Ended(None, output)
        return Ended(process.returncode, output)

    def imports(self) -> bool:
        """Whether the server and the client can be imported, and are those of this copy."""
        ended = self.run(["-c", f"{IMPORTS}; print(minibrokerd.__file__, minibroker.__file__)"], 60)
        return ended.status == 0 and ended.output.count(str(self.root)) == 2
