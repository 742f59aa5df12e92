"""Tests side by side: collected once, then run in processes that are forked off, a file at a time.

`pytest --side-by-side 6` forks six processes when everything is imported and collected, which is the dearest part
of most tests: 10,000 of them take 5 s to collect, and in each process again where each collects for itself. A
process takes the next file when it has done one, so the tests of a file share what they start, as its fixtures do.

What a test says comes back as its reports, and this process prints, counts and remembers them as if it had run it.
A process that dies is a failure of the test that it was at, and of those of its file that nobody came to: nothing
that was collected ends unreported.
"""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Final

import pytest

TURN: Final = struct.Struct("<I")  # the number of a file, in a pipe that all processes read
PR_SET_PDEATHSIG: Final = 1
FORKING: Final = multiprocessing.get_context("fork")


class SideBySide:
    """A plugin of pytest: runs what was collected in several processes."""

    def __init__(self, process_count: int) -> None:
        self._process_count = process_count

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run all files; None, so that pytest goes on as always, where there is nothing to run."""
        if session.testsfailed or session.config.option.collectonly or not session.items:
            return None
        # All make their folders in this one, which pytest makes when it is first asked for, and takes away.
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        files = _by_file(session.items)
        turns, put = os.pipe()
        os.write(put, b"".join(map(TURN.pack, range(len(files)))))
        workers = [Worker(session, files, turns, put) for _ in range(self._process_count)]
        os.close(put)
        os.close(turns)
        try:
            _gather(session, workers)
        finally:
            for worker in workers:
                worker.end()
        ended = set().union(*(worker.ended for worker in workers))
        for item in session.items:
            if item.nodeid not in ended:
                _fail(session, item.nodeid, item.location, "no process came to it")
        return True


class Worker:
    """One process, and what this one knows of it."""

    def __init__(
        self, session: pytest.Session, files: list[list[pytest.Item]], turns: int, put: int
    ) -> None:
        self.reports, theirs = FORKING.Pipe(duplex=False)
        self.ended: set[str] = set()  # the tests that it is done with
        self.at: tuple[str, Any] | None = None  # the one that it runs, and where that stands
        sys.stdout.flush()
        self.process = FORKING.Process(target=_work, args=(session, files, turns, put, theirs))
        self.process.start()
        theirs.close()  # so that its end is the end of the pipe

    def hear(self, session: pytest.Session) -> bool:
        """Take the next that it says; return whether there may be more."""
        try:
            kind, said = self.reports.recv()
        except EOFError:
            self.process.join()
            if self.at is not None:
                text = f"its process ended with exit code {self.process.exitcode}"
                _fail(session, *self.at, text)
                self.ended.add(self.at[0])
            return False
        hook = session.config.hook
        if kind == "start":
            self.at = said
            hook.pytest_runtest_logstart(nodeid=said[0], location=said[1])
        elif kind == "finish":
            self.at = None
            self.ended.add(said[0])
            hook.pytest_runtest_logfinish(nodeid=said[0], location=said[1])
        else:
            report = hook.pytest_report_from_serializable(config=session.config, data=said)
            hook.pytest_runtest_logreport(report=report)
        return True

    def end(self) -> None:
        """End it, if it still runs: somebody pressed Ctrl-C, or enough has failed."""
        self.process.terminate()
        self.process.join()


def _by_file(items: list[pytest.Item]) -> list[list[pytest.Item]]:
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    return [*files.values()]


def _gather(session: pytest.Session, workers: list[Worker]) -> None:
    """Take reports until all processes have ended."""
    running: dict[Any, Worker] = {worker.reports: worker for worker in workers}
    while running:
        for reports in wait([*running]):
            if not running[reports].hear(session):
                del running[reports]
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)


def _fail(session: pytest.Session, nodeid: str, location: Any, text: str) -> None:
    report = pytest.TestReport(nodeid, location, {}, "failed", text, "call")
    session.config.hook.pytest_runtest_logreport(report=report)


# -- in a process that was forked off -----------------------------------------------------------------


class Telling:
    """A plugin of pytest in a forked process: what would be printed is told to the first one."""

    def __init__(self, config: pytest.Config, reports: Connection) -> None:
        self._config = config
        self._reports = reports

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        """Tell which test begins."""
        self._reports.send(("start", (nodeid, location)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell how a part of a test ended."""
        hook = self._config.hook
        data = hook.pytest_report_to_serializable(config=self._config, report=report)
        self._reports.send(("report", data))

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        """Tell which test has ended."""
        self._reports.send(("finish", (nodeid, location)))


def _work(
    session: pytest.Session,
    files: list[list[pytest.Item]],
    turns: int,
    put: int,
    reports: Connection,
) -> None:
    """Run files until none is left."""
    os.close(put)
    atexit._clear()  # what the first process does at its end, it does
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it ends with the first process
    plugins = session.config.pluginmanager
    plugins.unregister(name="terminalreporter")
    plugins.register(Telling(session.config, reports))
    # Output is kept in files, whose places forked processes would share.
    capture: Any = plugins.getplugin("capturemanager")
    capture.stop_global_capturing()
    capture.start_global_capturing()
    capture.suspend_global_capture()
    items = _items(files, turns)
    item = next(items, None)
    # Ctrl-C reaches the first process, too, which says so.
    with suppress(KeyboardInterrupt):
        while item is not None:
            following = next(items, None)
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            item = following
    atexit._run_exitfuncs()  # multiprocessing leaves without


def _items(files: list[list[pytest.Item]], turns: int) -> Iterator[pytest.Item]:
    while turn := os.read(turns, TURN.size):
        yield from files[TURN.unpack(turn)[0]]
