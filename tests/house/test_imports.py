"""Who may import what: the seams of docs/architecture.md, held by tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.source import CLIENT, CORE, ROOT, SERVER, imported_roots, name_of, python_files

FORBIDDEN_IN_PURE = frozenset(
    (
        "asyncio",
        "time",
        "datetime",
        "os",
        "io",
        "pathlib",
        "socket",
        "random",
        "secrets",
        "uuid",
        "threading",
        "logging",
    )
)

# Client modules that may touch the world; all others are pure, so that a blocking twin can use
# them. Each has its reason.
CLIENT_SHELL = {
    "__init__.py": "the public names, from pure and shell modules alike",
    "attached.py": "the second connection has a thread and a blocking socket of its own",
    "broker.py": "opens and closes on the event loop; reads the host's name and MINIBROKER_URL",
    "calls.py": "callers wait on the event loop for the answers to their requests",
    "consumer.py": "iterates on the event loop, and looks at the clock to write begins in time",
    "driver.py": "the asyncio shell around the session",
    "leaving.py": "waits for the last answers on the event loop",
    "ways_out.py": "names the CancelledError of asyncio, which a handler may raise; no loop is touched",
    "callables.py": "calls handlers in the event loop, or in threads",
    "link.py": "one connection: an asyncio protocol",
    "losses.py": "logs, and cancels the tasks of lost messages",
    "message.py": "gives dates as datetime; no clock is read",
    "queue.py": "the verbs of the public API, which wait on the event loop",
    "publishes.py": "callers of publishes wait on the event loop",
    "reconnecting.py": "connects, and connects again after a jittered delay",
    "running.py": "tasks of the event loop that call the handler",
    "spans.py": "takes timedelta; no clock is read",
    "timer.py": "arms the loop's timer for the table of deadlines",
}

PURE = python_files(CORE) + [path for path in python_files(CLIENT) if path.name not in CLIENT_SHELL]


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_pure_modules_reach_for_no_clock_disk_or_network(path: Path) -> None:
    """A simulator or a blocking client can drive it only if time and bytes are passed in."""
    assert not imported_roots(path) & FORBIDDEN_IN_PURE


def test_the_shell_list_names_only_modules_that_exist() -> None:
    """A module that was renamed or became pure must not keep its permission."""
    gone = [name for name in CLIENT_SHELL if not (CLIENT / name).exists()]
    needless = [
        name
        for name in CLIENT_SHELL
        if name != "__init__.py" and not imported_roots(CLIENT / name) & FORBIDDEN_IN_PURE
    ]
    assert (gone, needless) == ([], [])


@pytest.mark.parametrize("path", python_files(CORE), ids=name_of)
def test_the_core_knows_nothing_of_its_shell(path: Path) -> None:
    """It runs under a simulator and over other logs: no aiofiles, click, structlog or uvloop."""
    assert not imported_roots(path) & {"aiofiles", "click", "structlog", "uvloop"}


@pytest.mark.parametrize("path", python_files(CLIENT), ids=name_of)
def test_the_client_never_imports_the_server(path: Path) -> None:
    """An application must be able to carry the client alone."""
    assert "minibrokerd" not in imported_roots(path)


def test_importing_the_client_loads_the_client_only() -> None:
    """`import minibroker` stays light: a fresh interpreter shows what it pulls in."""
    code = "import sys, minibroker; print(*{name.partition('.')[0] for name in sys.modules})"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    loaded = set(printed.split())
    assert "minibroker" in loaded
    heavy = {
        "aiofiles",
        "aiohttp",
        "click",
        "h11",
        "http",
        "httpx",
        "minibrokerd",
        "structlog",
        "uvloop",
    }
    assert not loaded & heavy


def test_no_module_name_stands_in_both_packages() -> None:
    """Two modules of one name are two things with one name."""
    shared = {path.stem for path in python_files(CLIENT)} & {
        path.stem for path in python_files(SERVER)
    }
    assert shared <= {"__init__", "__main__"}


@pytest.mark.parametrize("folder", ["broker", "client"])
def test_the_folders_around_the_packages_are_no_packages(folder: str) -> None:
    """An `__init__.py` there would give every module a second name."""
    assert not (ROOT / folder / "__init__.py").exists()
