"""One row: a broker and its clients with stamps, what they took of the machine, and the spans."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.gauges import SyncGauge, percentile, record_bytes
from benchmarks.processes import clock_seconds
from benchmarks.rows import BODY_BYTES
from benchmarks.spans.joining import Noted, NotMet, shares, spans_of, trips
from benchmarks.spans.table import (
    CLIENT_STAMPS,
    HANDLED,
    INSIDE,
    SERVER_STAMPS,
    UNPACKED,
    Row,
)

ROOT: Final = Path(__file__).resolve().parents[2]
LISTENING: Final = re.compile(r"listening on (\S+:\d+)")
WARM_UP: Final = 200  # messages that do not count
SYNCS: Final = 300  # of the gauge, before and after
TIMEOUT_S: Final = 120


@dataclass
class Span:
    """What lies between two stamps. In a busy row: the share of a function in a cycle, a mean, and its calls."""

    name: str
    place: str
    process: str
    us: float
    p90_us: float | None = None
    calls: float | None = None


@dataclass
class Profile:
    """The figures of one row."""

    row: str
    kind: str
    prefetch: int
    messages: int
    spans: list[Span]
    whole_us: float  # the median of a trip; the mean of a cycle
    whole_p90_us: float | None = None
    frame: float | None = None  # messages of a cycle
    cpu_us: dict[str, float] = field(default_factory=dict)  # a message, by process
    switches: dict[str, float] = field(default_factory=dict)  # of its threads, a message
    stamps_us: float = 0.0  # what the stamps take of a message, all processes together
    sync_us: float = 0.0
    load: float = 0.0


def measure(row: Row, messages: int, folder: Path) -> Profile:
    """Run a row and return its figures.

    Raises:
        NotMet: the table names a function that this row does not pass.
    """
    count = messages + WARM_UP
    gauge = SyncGauge(folder, record_bytes(1, BODY_BYTES))
    gauge.measure(SYNCS)
    written, used = run(row, count, folder)
    gauge.measure(SYNCS)
    gauge.close()
    profile = joined(row, written, count)
    profile.cpu_us = {name: 1e6 * cpu / count for name, (cpu, _) in used.items()}
    profile.switches = {name: switches / count for name, (_, switches) in used.items()}
    profile.sync_us, profile.load = gauge.p50_us, os.getloadavg()[0]
    return profile


Written = dict[str, dict[str, Any]]  # what the stamps of each process noted, and what one costs


def run(row: Row, count: int, folder: Path) -> tuple[Written, dict[str, tuple[float, float]]]:
    """Have a row of so many messages done; return its stamps, and CPU seconds and switches of each process."""
    with ExitStack() as stack:
        server, url = _server(stack, folder)
        pids = {"server": server.pid}
        clients = {}
        for name in sorted(row.clients):  # a consumer before its producer
            words = row.kind, row.clients[name], str(count), str(row.prefetch)
            clients[name] = _start(
                stack, "benchmarks.spans.worked", str(folder / name), url, *words
            )
            pids[name] = clients[name].pid
            _hear(clients[name], "ready")
        before = {name: _used(pid) for name, pid in pids.items()}
        for client in clients.values():
            _tell(client)
        for client in clients.values():
            _hear(client, "done")
        after = {name: _used(pid) for name, pid in pids.items()}
        for client in clients.values():
            _tell(client)
            client.communicate(timeout=TIMEOUT_S)
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=TIMEOUT_S)
    used = {name: (after[name][0] - cpu, after[name][1] - n) for name, (cpu, n) in before.items()}
    return {name: json.loads((folder / name).read_text("utf-8")) for name in pids}, used


def _server(stack: ExitStack, folder: Path) -> tuple[subprocess.Popen[str], str]:
    flags = "--data-dir", str(folder / "data"), "--port", "0", "--no-http"
    server = _start(stack, "benchmarks.spans.served", str(folder / "server"), "serve", *flags)
    assert server.stdout is not None
    printed = []
    for line in server.stdout:
        printed.append(line)
        if found := LISTENING.search(line):
            return server, f"minibroker://{found[1]}"
    raise SystemExit("the broker did not start:\n" + "".join(printed))


def _start(stack: ExitStack, module: str, *words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if module.endswith("served") else None,
        text=True,
        cwd=ROOT,
    )
    stack.enter_context(_ended(process))
    return process


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        with suppress(ValueError):  # what it said was read before
            process.communicate()


def _hear(client: subprocess.Popen[str], word: str) -> None:
    assert client.stdout is not None
    line = client.stdout.readline().strip()
    if line != word:
        raise SystemExit(f"a client said {line!r} instead of {word!r}; its error stands above")


def _tell(client: subprocess.Popen[str]) -> None:
    assert client.stdin is not None
    client.stdin.write("go\n")
    client.stdin.flush()


def _used(pid: int) -> tuple[float, float]:
    """Return CPU seconds of a process, and how often its threads were switched."""
    switches = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with suppress(OSError):  # it has ended
            switches += sum(map(int, re.findall(r"ctxt_switches:\s*(\d+)", status.read_text())))
    return clock_seconds(pid), switches


def joined(row: Row, written: Written, count: int) -> Profile:
    """Return what the stamps of all processes say of a row of so many messages."""
    profile = (trip if row.points else cycle)(row, noted_in(written))
    for each in written.values():
        profile.stamps_us += sum(map(len, each["calls"].values())) / count * each["cost_ns"] / 1e3
    return profile


def noted_in(written: Written) -> Noted:
    """Return the calls of what processes wrote."""
    return {name: each["calls"] for name, each in written.items()}


def trip(row: Row, noted: Noted, skip: int = WARM_UP) -> Profile:
    """Return the spans of single messages: medians, and what nine tenths stay below."""
    found = trips(row, noted, skip)
    spans = []
    for point, took in zip(row.points, spans_of(found), strict=True):
        us = [each / 1e3 for each in took]
        spans.append(Span(point.span, point.place, point.process, median(us), percentile(us, 90)))
    wholes = [sum(each) / 1e3 for each in found]
    whole = median(wholes), percentile(wholes, 90)
    return Profile(row.name, row.kind, row.prefetch, len(found), spans, *whole)


def cycle(row: Row, noted: Noted, skip: int = WARM_UP) -> Profile:
    """Return how the threads of each process spend the time of a frame."""
    (client,) = row.clients
    handled = noted[client][HANDLED][skip:]
    begin, end = handled[0][0], handled[-1][1]
    frames = sum(begin <= at <= end for at in [call[1] for call in noted[client][UNPACKED]])
    wanted = {client: CLIENT_STAMPS[row.kind], "server": (*SERVER_STAMPS,)}
    spans = []
    for process, names in wanted.items():
        threads = shares(noted[process], begin, end)
        ordered = sorted(threads, key=lambda each: -sum(c for _, c in threads[each].values()))
        if missed := [name for name in names if name in INSIDE and not noted[process][name]]:
            raise NotMet(f"{row.title}: {process} never passed {missed}")
        for number, thread in enumerate(ordered):
            spans += _spans_of_thread(
                f"{process}, thread {number + 1}" if number else process, threads[thread], frames
            )
    messages = len(handled)
    whole_us = (end - begin) / 1e3 / frames
    return Profile(
        row.name, row.kind, row.prefetch, messages, spans, whole_us, frame=messages / frames
    )


def _spans_of_thread(
    process: str, found: dict[str, tuple[float, float]], frames: int
) -> list[Span]:
    return [
        Span(label, place, process, found[name][0] / 1e3 / frames, calls=found[name][1] / frames)
        for name, (place, label) in INSIDE.items()
        if name in found
    ]


def as_json(profiles: Sequence[Profile]) -> str:
    """Return all figures, for programs."""
    return json.dumps([asdict(each) for each in profiles], indent=1) + "\n"
