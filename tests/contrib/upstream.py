"""The tests of other libraries, out of their source packages, with minibroker in the place of their own broker.

python tests/contrib/upstream.py dramatiq [words for pytest]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "upstream"


@dataclass(frozen=True, slots=True)
class Suite:
    """A library at the version whose tests these are, and which of them are about a broker."""

    library: str
    version: str
    needs: tuple[str, ...]  # packages that its tests import, and development here has not
    files: tuple[str, ...]  # below its folder `tests`
    flags: tuple[str, ...] = ()

    @property
    def beside(self) -> Path:
        """What is laid beside its tests."""
        return ROOT / "tests" / "contrib" / f"{self.library}_suite"

    @property
    def folder(self) -> Path:
        """The unpacked source package."""
        return BUILD / f"{self.library}-{self.version}"

    def fetch(self) -> None:
        """Have the source package, by pip, and what its tests need."""
        if not self.folder.exists():
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "install", *self.needs], check=True)
            package = f"{self.library}=={self.version}"
            words = ["--no-deps", "--no-binary", self.library, "--dest", str(BUILD), package]
            subprocess.run([*pip, "download", *words], check=True)
            with tarfile.open(f"{self.folder}.tar.gz") as archive:
                archive.extractall(BUILD, filter="data")
        for path in self.beside.glob("*.py"):
            shutil.copy(path, self.folder / "tests" / path.name)
        (self.folder / "tests" / "__init__.py").touch()

    def run(self, *words: str) -> int:
        """Run its tests, with nothing of the options of either project; return pytest's exit code."""
        files = [f"tests/{name}" for name in self.files]
        pytest = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", "."]
        pytest += ["-p", "no:cacheprovider", "-q", "--timeout", "60", *self.flags, *files, *words]
        env = os.environ | {"PYTHONPATH": "tests"}
        return subprocess.run(pytest, cwd=self.folder, env=env).returncode


SUITES = {
    suite.library: suite
    for suite in (
        Suite(
            "dramatiq",
            "2.2.1",
            ("pika>=1.3", "redis>=5.2"),
            (
                "test_actors.py",
                "test_callbacks.py",
                "test_composition.py",
                "test_generic_actors.py",
                "test_messages.py",
                "test_worker.py",
                "test_broker.py",
                "test_encoders.py",
                "test_results.py",
                "test_redis.py",
            ),
            ("-p", "tests.minibroker_as_stub", "-p", "no:asyncio"),
        ),
        Suite(
            "taskiq",
            "0.13.0",
            ("cbor2>=5.6", "orjson>=3.10"),
            (
                "test_requeue.py",
                "test_retry_task.py",
                "depends",
                "test_exceptions_flow.py",
                "middlewares/test_task_retry.py",
                "test_kicker.py",
                "receiver",
            ),
            ("-p", "no:asyncio", "-p", "minibroker_in_memory", "-o", "anyio_mode=auto"),
        ),
    )
}


def main(library: str, *words: str) -> int:
    """Fetch and run the suite of a library."""
    suite = SUITES[library]
    suite.fetch()
    return suite.run(*words)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
