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
    def python(self) -> str:
        """The interpreter that its tests run on."""
        return sys.executable

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
            pip = [self.python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
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


class DjangoSuite(Suite):
    """Django's tests have a runner of their own, and want a younger Python than minibroker does."""

    @property
    def python(self) -> str:
        """That of an environment below build/, made with the first Python that is young enough."""
        folder = BUILD / "django-environment"
        python = folder / "bin" / "python"
        if not python.exists():
            found = next(
                filter(None, map(_young, ("python3", "python3.14", "python3.13", "python3.12"))),
                None,
            )
            if found is None:
                sys.exit("Django's tests need a Python of at least 3.12 in PATH")
            subprocess.run([found, "-m", "venv", str(folder)], check=True)
            pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
            needs = [f"{self.library}=={self.version}", "--editable", str(ROOT)]
            subprocess.run([*pip, "install", *needs], check=True)
        return str(python)

    def fetch(self) -> None:
        """Have it; its tests are no package."""
        super().fetch()
        (self.folder / "tests" / "__init__.py").unlink()

    def run(self, *words: str) -> int:
        """Run its tests of tasks; return the exit code."""
        quiet = ["-W", "ignore::ResourceWarning"]  # connections that end with the process
        script = [self.python, *quiet, "minibroker_runtests.py", *self.files, *words]
        return subprocess.run(script, cwd=self.folder / "tests").returncode


def _young(name: str) -> str | None:
    """Return the path of this Python if it is there, works and is at least 3.12."""
    path = shutil.which(name)
    if path is None:
        return None
    check = "import sys; sys.exit(sys.version_info < (3, 12))"
    is_young = subprocess.run([path, "-c", check], stderr=subprocess.DEVNULL).returncode == 0
    return path if is_young else None


SUITES = {
    suite.library: suite
    for suite in (
        DjangoSuite("django", "6.1.3", ("pip",), ("tasks",)),
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
