"""Be `minibroker`, or a file of the tests, in a moment: warmer.py FD forks for each request of a socket.

It tells whoever asked the number of each, and how it ended. When whoever asks has ended, so does all of this.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from minibrokerd.cli.main import COMMANDS

REQUEST_BYTES = 1_000_000  # of JSON: words, environment, folder and session
FDS = 5  # standard input, output, error, where to write the process id and the exit code, and maybe what holds it
NUMBER = b"%12d"
MOST_FILES = 65_536
PR_SET_PDEATHSIG = 1
# What commands, and programs of the tests, import only when they run.
MORE = (
    "asyncio",
    "msgpack",
    "rich.console",
    "uvloop",
    "minibroker.sync",
    "minibrokerd.serving.server",
    "minibrokerd.workers.health",
    "minibrokerd.workers.supervisor",
)


def serve(requests: socket.socket) -> None:
    """Fork for each request until nobody asks any more; returns in each new process, to be the command."""
    told: dict[int, int] = {}  # where to tell how a process ended, by its number
    held: dict[int, int] = {}  # processes that end with who asked for them, by what that holds open
    woken, wakes = socket.socketpair()
    for end in (woken, wakes):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno())
    while True:
        sources: list[Any] = [requests, woken, *held]
        ready, _, _ = select.select(sources, [], [])
        if woken in ready:
            woken.recv(4096)
            tell_ends(told)
        for fd in held.keys() & ready:
            os.close(fd)
            if (pid := held.pop(fd)) in told:
                os.kill(pid, signal.SIGKILL)
        if requests in ready:
            asked, fds, _, _ = socket.recv_fds(requests, REQUEST_BYTES, FDS)
            if not asked:
                sys.exit()
            asked_for = json.loads(asked)
            if (pid := os.fork()) == 0:
                begin(asked_for, fds)
                return
            if asked_for["held"]:
                held[fds.pop()] = pid
            told[pid] = fds.pop()
            os.write(told[pid], NUMBER % pid)
            for fd in fds:
                os.close(fd)


def tell_ends(told: dict[int, int]) -> None:
    """Tell of those that have ended how they did."""
    while told:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        fd = told.pop(pid)
        with suppress(BrokenPipeError):  # whoever asked is not interested any more
            os.write(fd, NUMBER % os.waitstatus_to_exitcode(status))
        os.close(fd)


def begin(request: dict[str, Any], fds: list[int]) -> None:
    """Become the process that was asked for: its streams, session, folder, variables, signals and words."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it ends with the warmer
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, fd in enumerate(fds[:3]):
        os.dup2(fd, number)
    os.closerange(3, MOST_FILES)
    if request["session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    make_streams()
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    # As `python -m` does, or `python FILE`.
    file, words = request["file"], request["words"]
    sys.path[0] = str(Path(file).parent) if file else request["folder"]
    sys.argv = [file or "", *words]
    sys.orig_argv[:] = [sys.executable, *([file] if file else ["-m", "minibrokerd"]), *words]


def make_streams() -> None:
    """Make the standard streams as they are made at the start, each of what it is now."""
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for name, mode in (("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb")):
        old = getattr(sys, name)
        size = 0 if unbuffered and mode == "wb" else -1
        raw = open(old.fileno(), mode, size, closefd=False)  # noqa: SIM115
        eager = not unbuffered and (name == "stderr" or raw.isatty())
        new = io.TextIOWrapper(
            raw, old.encoding, old.errors, "\n", line_buffering=eager, write_through=unbuffered
        )
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def leave(code: int) -> None:
    """End as an interpreter does, but without taking apart what was imported: that is two thirds of the time.

    Returns where that is not all that there is to it; the interpreter says what.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    for module in (*{*COMMANDS.values()}, *MORE):
        import_module(module if module in MORE else f"minibrokerd.cli.{module}")
    gc.freeze()  # a look at what is shared would copy it
    serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        if sys.argv[0]:
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            runpy.run_module("minibrokerd", run_name="__main__", alter_sys=True)
        leave(0)
    except SystemExit as ended:
        if isinstance(ended.code, int):
            leave(ended.code)
        raise
