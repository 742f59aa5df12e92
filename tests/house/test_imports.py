"""Who may import what: the seams of docs/architecture.md, held by tests."""

from __future__ import annotations

import re
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
    names_in,
    offenders,
    python_files,
    sentence_of,
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
    "contrib": {"contract", "session", "shell", "aio", "sync", "worker", "contrib"},
}
PURE_ROOMS = ("contract", "session")

# Modules of pure rooms that name something of the world all the same. Each has its reason.
ALLOWED_IN_PURE = {
    "session/arguments.py": ({"datetime"}, "a default is a timedelta; no clock is read"),
    "session/dead.py": ({"datetime"}, "dates as values; no clock is read"),
    "session/explanation.py": ({"datetime"}, "dates as values; no clock is read"),
    "session/log_pages.py": ({"datetime"}, "dates as values; no clock is read"),
    "session/log_wishes.py": ({"datetime"}, "dates as values; no clock is read"),
    "session/message.py": ({"datetime"}, "dates as values; no clock is read"),
    "session/rescheduling.py": ({"datetime"}, "dates as values; no clock is read"),
    "session/pause_wishes.py": ({"datetime"}, "dates as values; no clock is read"),
    "session/key_wishes.py": ({"datetime"}, "dates as values; no clock is read"),
    "session/schedule_wishes.py": ({"datetime"}, "dates as values; no clock is read"),
    "session/spans.py": ({"datetime"}, "takes timedelta; no clock is read"),
}

PURE = python_files(CORE, *(CLIENT / room for room in PURE_ROOMS))


def room_name(path: Path) -> str:
    """Return the path below the client's package."""
    return path.relative_to(CLIENT).as_posix() if path.is_relative_to(CLIENT) else ""


def test_pure_modules_reach_for_no_clock_disk_or_network() -> None:
    """A simulator or a blocking client can drive it only if time and bytes are passed in."""
    assert not offenders(PURE, _impure)


def _impure(path: Path) -> set[str]:
    allowed, _ = ALLOWED_IN_PURE.get(room_name(path), (set(), ""))
    return imported_roots(path) & FORBIDDEN_IN_PURE - allowed


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


def doors() -> dict[str, tuple[str, str]]:
    """Return the table of the server's rooms: what lives there, and what they may import."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z/]+)/` \| (.*?) \| ([a-z/, ]+) \|$", text, re.MULTILINE)
    return {room: (sentence, may) for room, sentence, may in rows}


SERVER_ROOMS = doors()
PACKED = python_files(SERVER)


def server_room(name: str) -> str | None:
    """Return the room of a module, by its name below the package; None: it is in none."""
    parts = name.split(".")
    for size in (2, 1):
        if "/".join(parts[:size]) in SERVER_ROOMS and len(parts) >= size:
            return "/".join(parts[:size])
    return None


def arrows(room: str) -> set[tuple[str, str]]:
    """Return what modules of a room import of other rooms, both by their names below the package."""
    found = set()
    for path in python_files(SERVER / room):
        name = ".".join(path.relative_to(SERVER).with_suffix("").parts)
        if server_room(name) != room:
            continue  # of a room within this one
        for other in imported(path):
            module = other.removeprefix("minibrokerd.")
            if module != other and server_room(module) not in (room, None):
                while not (SERVER.joinpath(*module.split(".")).with_suffix(".py")).exists():
                    if (SERVER.joinpath(*module.split("."), "__init__.py")).exists():
                        break
                    module = module.rpartition(".")[0]
                found.add((name, module))
    return found


def test_every_room_of_the_server_is_in_the_table() -> None:
    """And every module is in a room, but for the two that Python asks for."""
    rooms = {server_room(".".join(p.relative_to(SERVER).with_suffix("").parts)) for p in PACKED}
    assert rooms == {*SERVER_ROOMS, None}
    outside = [path for path in PACKED if path.parent == SERVER]
    assert {path.stem for path in outside} == {"__init__", "__main__"}


@pytest.mark.parametrize("room", SERVER_ROOMS)
def test_a_room_says_at_its_door_what_lives_there(room: str) -> None:
    """In the words of docs/architecture.md."""
    assert sentence_of(SERVER / room) == SERVER_ROOMS[room][0]


@pytest.mark.parametrize("room", SERVER_ROOMS)
def test_each_room_of_the_server_imports_what_the_table_says(room: str) -> None:
    """Exactly that, and only rooms above it."""
    found = arrows(room)
    used = {server_room(module) for _, module in found}
    order = list(SERVER_ROOMS)
    above = order[: order.index(room)]
    said = SERVER_ROOMS[room][1]
    if said == "everything above":
        assert used <= set(above)
        return
    may = [] if said == "nothing" else said.split(", ")
    assert sorted(used, key=str) == sorted(may), sorted(found)
    assert may == [each for each in above if each in may]


def test_no_modules_of_the_client_import_each_other() -> None:
    """A circle is one module in several files, one that is for types alone included."""
    assert circles(CLIENT) == []


def test_the_core_knows_nothing_of_its_shell() -> None:
    """It runs under a simulator and over other logs: no aiofiles, click, structlog or uvloop."""
    shell = {"aiofiles", "click", "structlog", "uvloop"}
    assert not offenders(python_files(CORE), lambda path: imported_roots(path) & shell)


# Names in the core of what only `bodies/` and `log/` know, and why.
PLACES = re.compile("crc|zlib|segment|offset")
# That of a message in a retained log, which is its sequence there.
OFFSETS = re.compile("^(_?(max|next)_)?offsets?(_bits)?$")
ALLOWED_PLACES = {
    ("records.py", "segment"): "a field of DAMAGED, which is in logs, and for an operator",
}


def test_the_core_knows_no_place_in_a_log_and_no_sum_of_bytes() -> None:
    """Decision 44: it names extents, so that they may stand in another kind of log."""
    found = {
        (path.name, name)
        for path in python_files(CORE)
        for name in names_in(path)
        if PLACES.search(name.lower()) and not OFFSETS.search(name.lower())
    }
    assert found == set(ALLOWED_PLACES)


def test_the_client_never_imports_the_server() -> None:
    """An application must be able to carry the client alone."""
    assert not offenders(python_files(CLIENT), lambda path: imported_roots(path) & {"minibrokerd"})


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
