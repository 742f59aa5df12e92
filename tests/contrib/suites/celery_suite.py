"""`make celery-suite`: kombu's and Celery's own integration tests against this broker, and beside it against
Redis.

The source packages are fetched into build/celery-suite, pinned. kombu's mixins run as they are (kombu_mixins.py
is put among them). Celery's files run twice, once with each broker, and what differs is printed.
FILES="test_tasks test_worker" takes some of Celery's files only. Results are in Redis both times, or with
BACKEND=minibroker where the tasks are.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from support.services import free_port

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / "build" / "celery-suite"
PINNED = ("kombu==5.7.0", "celery==5.7.0")
TOOLS = ("redis>=5.2", "pytest-rerunfailures", "pytest-subtests", "pytest-timeout", "pydantic")
FILES = os.environ.get("FILES", "test_tasks test_canvas test_worker test_inspect").split()
BACKEND = os.environ.get("BACKEND", "redis")
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:rerunfailures"]


def fetch() -> None:
    """Have the sources, and what their tests import."""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *TOOLS], check=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in PINNED:
        folder = BUILD / name.replace("==", "-")
        if not folder.exists():
            pip = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                ":all:",
            ]
            subprocess.run([*pip, "--dest", str(BUILD), name], check=True)
            with tarfile.open(folder.with_name(f"{folder.name}.tar.gz")) as archive:
                archive.extractall(BUILD, filter="data")


def outcomes(command: list[str], folder: Path, env: dict[str, str]) -> dict[str, str]:
    """Run tests; return what became of each."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as file:
        subprocess.run([*command, f"--junitxml={file.name}"], cwd=folder, env={**os.environ, **env})
        cases = ElementTree.parse(file.name).iter("testcase")
        return {f"{case.get('classname')}::{case.get('name')}": _outcome(case) for case in cases}


def _outcome(case: ElementTree.Element) -> str:
    for kind in ("failure", "error", "skipped"):
        if case.find(kind) is not None:
            return kind
    return "passed"


def show(name: str, found: dict[str, str]) -> None:
    """Print how many passed, and which did not."""
    values = list(found.values())
    print(
        f"{name}: {values.count('passed')} passed of {len(values)}, {values.count('skipped')} skipped"
    )


def main() -> None:
    """Fetch, run, compare."""
    fetch()
    ours, redis = free_port(), free_port()
    with tempfile.TemporaryDirectory() as directory:
        serve = [sys.executable, "-m", "minibrokerd", "serve", "--no-http", "--port", str(ours)]
        broker = subprocess.Popen([*serve, "--data-dir", f"{directory}/data"])
        store = ["redis-server", "--port", str(redis), "--dir", directory, "--save", ""]
        results = subprocess.Popen(store, stdout=subprocess.DEVNULL)
        try:
            compare(ours, redis)
        finally:
            broker.terminate()
            results.terminate()
            broker.wait(30)
            results.wait(30)


def compare(ours: int, redis: int) -> None:
    """Run all of it against both ports."""
    kombu, celery = (BUILD / name.replace("==", "-") for name in PINNED)
    mixins = Path(__file__).with_name("kombu_mixins.py").read_text("utf-8")
    (kombu / "t/integration/test_minibroker.py").write_text(mixins, "utf-8")
    command = [*PYTEST, "-c", "/dev/null", "--rootdir", ".", "--timeout", "30"]
    env = {"MINIBROKER_SUITE_PORT": str(ours)}
    show("kombu", outcomes([*command, "t/integration/test_minibroker.py"], kombu, env))
    command = [*PYTEST, "-p", "celery.contrib.pytest", "-p", "no:xdist", "--timeout", "90"]
    command += ["-p", "as_redis"]
    for file in FILES:
        both = {}
        for name, url in (
            ("minibroker", f"minibroker://127.0.0.1:{ours}"),
            ("redis", f"redis://127.0.0.1:{redis}/1"),
        ):
            env = {"TEST_BROKER": url, "TEST_BACKEND": f"redis://127.0.0.1:{redis}/2"}
            if name == BACKEND == "minibroker":
                env["TEST_BACKEND"] = f"redis.minibroker://127.0.0.1:{ours}"  # as_redis.py says why
            env["PYTHONPATH"] = os.pathsep.join(
                filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
            )
            env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            env |= {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(redis)}
            both[name] = outcomes([*command, f"t/integration/{file}.py"], celery, env)
            show(f"celery {file}, {name}", both[name])
        for test in sorted(both["minibroker"].keys() | both["redis"].keys()):
            here, there = (both[name].get(test, "missing") for name in ("minibroker", "redis"))
            if here != there:
                print(f"  {test}: {here}, with Redis {there}")


if __name__ == "__main__":
    main()
