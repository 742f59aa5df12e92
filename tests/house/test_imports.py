"""Who may import what: the seams of docs/architecture.md, held by tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.source import (
    CLIENT,
    CORE,
    ROOT,
    SERVER,
    circles,
    imported,
    imported_roots,
    name_of,
    python_files,
)

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

# Rooms of the client, each with the rooms that it may import; what stands on top may import every room.
ROOMS = {
    "contract": {"contract"},
    "session": {"contract", "session"},
    "shell": {"contract", "session", "shell"},
    "aio": {"contract", "session", "shell", "aio"},
    "sync": {"contract", "session", "shell", "sync"},
    "worker": {"contract", "session", "shell", "aio", "worker"},
}
PURE_ROOMS = ("contract", "session")

# Modules of pure rooms that name something of the world all the same. Each has its reason.
ALLOWED_IN_PURE = {
    "session/arguments.py": ({"datetime"}, "a default is a timedelta; no clock is read"),
    "session/message.py": ({"datetime"}, "dates as values; no clock is read"),
    "session/spans.py": ({"datetime"}, "takes timedelta; no clock is read"),
}

PURE = python_files(CORE, *(CLIENT / room for room in PURE_ROOMS))


def room_name(path: Path) -> str:
    """Return the path below the client's package."""
    return path.relative_to(CLIENT).as_posix() if path.is_relative_to(CLIENT) else ""


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_pure_modules_reach_for_no_clock_disk_or_network(path: Path) -> None:
    """A simulator or a blocking client can drive it only if time and bytes are passed in."""
    allowed, _ = ALLOWED_IN_PURE.get(room_name(path), (set(), ""))
    assert not imported_roots(path) & FORBIDDEN_IN_PURE - allowed


def test_every_exception_is_needed() -> None:
    """A module that was renamed or became pure must not keep its permission."""
    for name, (allowed, _) in ALLOWED_IN_PURE.items():
        assert allowed <= imported_roots(CLIENT / name), name


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_of_the_client_imports_only_what_lies_below_it(room: str) -> None:
    """The contract knows no session, a session no shell, and no room what stands on top."""
    may = {f"minibroker.{name}" for name in ROOMS[room]}
    for path in python_files(CLIENT / room):
        ours = {name for name in imported(path) if name.partition(".")[0] == "minibroker"}
        wrong = {name for name in ours if ".".join(name.split(".")[:2]) not in may}
        assert wrong <= {"minibroker"}, name_of(path)


def test_no_modules_of_the_client_import_each_other() -> None:
    """A circle is one module in several files, one that is for types alone included."""
    assert circles(CLIENT) == []


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
