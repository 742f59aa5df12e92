"""`make counted A=REV B=REV`: instructions of the broker for one message, of two commits, row by row.

Time by the clock says little beside others on a machine; the instructions of a fixed workload are always the
same. A whole broker in process (no socket, no disk, and its clock stands still) gets frames as they come off the
wire, and valgrind counts. What this client does is counted, too: it is the same on both sides, and little.

Where a row begins and ends the process forks a child that does nothing; the count that valgrind writes at its end
is that of all before. So one start serves all rows.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.compare import ROOT, Side, checked_out, print_table

from minibroker.contract import limits, wire
from minibrokerd.inprocess import MemoryBroker

BODY_BYTES: Final = 100
MESSAGES: Final = 2_000
WARM_UP: Final = 1_000
KEYS: Final = 100
TURNS: Final = [b"key-%04d" % number for number in range(KEYS)]  # one message of each in a frame
DELAY_MS: Final = 1_000
SETTLED: Final = 16  # by a frame of who has a prefetch of 32
PACE: Final = 16  # such frames share a sync, at about 14,000 of them a second
PACE_S: Final = 0.002  # so that it is due
RUN: Final = "--run"  # said to the process that is counted
NOTHING: Final = "nothing"  # the row of what a row costs
VALGRIND: Final = ("valgrind", "--quiet", "--tool=cachegrind", "--cache-sim=no")
SUMMARY: Final = re.compile(rb"summary: (\d+)")
HEADS: Final = ("instructions a message", "A", "B", "B/A")

# Rows of what a consumer of 32 gets: settings of its queue, terms of its messages, and their keys.
# A rate that is never used up: what it costs to ask, not to wait.
CONSUMED: Final[Sequence[tuple[str, dict[str, object], dict[str, object], Sequence[bytes]]]] = (
    ("plain", {}, {}, ()),
    ("a priority", {}, {"priority": 5}, ()),
    ("keys", {}, {}, TURNS),
    ("keys, runs of 10", {}, {}, [key for key in TURNS[::10] for _ in range(10)]),
    ("key_concurrency=5", {"key_concurrency": 5}, {}, TURNS),
    ("key_concurrency=1", {"key_concurrency": 1}, {}, TURNS),
    ("key_rate", {"key_rate": 1_000_000, "key_rate_burst": 1_000_000}, {}, TURNS),
    ("circuit_by=key", {"circuit_by": "key", "circuit_failures_percent": 50}, {}, TURNS),
    ("times_by=key", {"times_by": "key"}, {}, TURNS),
    ("rate", {"rate": 1_000_000, "rate_burst": 1_000_000}, {}, ()),
)

Run = tuple[int, int, int, int]
Counts = dict[str, float]  # instructions a message, by row


class Meter:
    """Notes which children were made where."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, int]] = []  # name, child at the begin, child at the end

    @contextmanager
    def row(self, name: str) -> Iterator[None]:
        """Count the block as what `MESSAGES` messages cost."""
        gc.collect()
        begin = _fork()
        yield
        self.rows.append((name, begin, _fork()))


def _fork() -> int:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child


class Client:
    """A session of a new broker with one queue, which makes and reads frames with as little as that takes."""

    def __init__(self, settings: dict[str, object]) -> None:
        self.broker = MemoryBroker()
        self.broker.stop_clock()
        self._now_s = 0.0  # else a slow machine looks at timers more often
        self.broker.loop.time = lambda: self._now_s
        self._pipe = self.broker.connect(lambda: None, lambda: None)
        self._reader = wire.FrameReader()
        self._sequence = 0
        self._held: deque[list[Run]] = deque()  # what one frame settles each
        self._send({"op": "hello", "protocol": limits.PROTOCOL_VERSION})
        self._send({"op": "queue_set", "queue": "q", "settings": settings}, request=1)
        welcome, *frames = self._reader.feed(self._pipe.read())
        self._begins = "begins" in welcome.header
        if welcome.header.get("through"):
            self._send({"op": "accept", "through": 1})
        for frame in frames:
            if frame.header["op"] == "error":
                raise LookupError("a commit that does not know these settings")

    def _send(self, part: dict[str, object], *rest: bytes, **names: object) -> None:
        self._pipe.write((wire.pack_frame({"parts": [part], **names}, *rest),))

    def _say(self, part: dict[str, object], *rest: bytes, **names: object) -> None:
        self._sequence += 1
        names |= {"sequence": self._sequence, "answered_below": self._sequence}
        self._send(part, *rest, **names)

    def publish(
        self,
        messages: int,
        size: int,
        terms: dict[str, object],
        keys: Sequence[bytes] = (),
        *,
        reads: bool = True,
    ) -> None:
        """Publish messages in frames of `size`, and pass over what comes; or leave it to who `reads` later."""
        part: dict[str, object] = {"op": "publish", "queue": "q", "count": size, **terms}
        columns = b""
        if keys:
            part["columns"], columns = ["key"], wire.pack_strings(keys)
        lengths, blob = struct.pack("<II", 0, BODY_BYTES) * size, bytes(BODY_BYTES * size)
        for _ in range(messages // size):
            self._say(part, columns, lengths, blob)
            if reads:
                self._pipe.read()
        if self._pipe.is_ended:
            raise LookupError("a commit that does not know these terms")

    def consume(self, prefetch: int) -> None:
        """Have a consumer of the queue, or give it another prefetch."""
        part: dict[str, object] = {
            "op": "consume",
            "queue": "q",
            "consumer": 1,
            "prefetch": prefetch,
        }
        self._send(part, request=1)

    def delivered(self) -> list[list[Run]]:
        """Return the runs of each delivery that has come."""
        found = []
        for frame in self._reader.feed(self._pipe.read()):
            if frame.header["op"] == "deliver":
                token, runs = frame.header["token"], frame.header["runs"]
                column = frame.columns[: wire.DELIVERY_RUN.size * runs]
                found.append(_joined(token, column))
        return found

    def settle_all(self, op: str, frames: Iterable[Sequence[Run]]) -> None:
        """Send runs, and pass over the confirms."""
        for runs in frames:
            self._say({"op": op, "queue": "q", "runs": len(runs)}, wire.pack_runs(runs))
            self._pipe.read()

    def drain(self, messages: int, *, paced: bool = False) -> None:
        """Ack the oldest `SETTLED` that are held in a frame, until so many are acked; `paced`: they are synced."""
        for number in range(messages // SETTLED):
            if paced and not number % PACE:
                self._now_s += PACE_S
            for runs in self.delivered():
                self._held += frames_of(runs, SETTLED)
            runs = self._held.popleft()
            self._say({"op": "ack", "queue": "q", "runs": len(runs)}, wire.pack_runs(runs))

    def work_alone(self, messages: int) -> None:
        """Publish one message after the other to a handler that waits, begin it if it is not, and ack it."""
        for _ in range(messages):
            self.publish(1, 1, {}, reads=False)
            self._now_s += PACE_S
            ((run,),) = self.delivered()
            part = {"queue": "q", "runs": 1}
            if not self._begins:
                self._send({"op": "begin", **part}, wire.pack_runs([run]))
                self._pipe.read()
            names = {"waits": 1} if self._begins else {}
            self._say({"op": "ack", **part}, wire.pack_runs([run]), **names)
            self._pipe.read()


def _joined(token: int, column: bytes) -> list[Run]:
    """Return the runs of a delivery as short as they can be named."""
    runs: list[Run] = []
    next_first = -1
    for origin, first, count, *_ in wire.DELIVERY_RUN.iter_unpack(column):
        if first == next_first:
            count += runs[-1][3]
            first = runs.pop()[2]
        runs.append((token, origin, first, count))
        next_first = first + count
    return runs


def frames_of(runs: list[Run], size: int) -> Iterator[list[Run]]:
    """Cut the runs of a delivery after each `size` messages."""
    frame, room = [], size
    for token, origin, first, count in runs:
        while count:
            taken = min(count, room)
            frame.append((token, origin, first, taken))
            first, count, room = first + taken, count - taken, room - taken
            if not room:
                yield frame
                frame, room = [], size
    if frame:
        yield frame


def count_steps(meter: Meter) -> None:
    """Count each thing that is done to plain messages, one by one and in frames of a thousand."""
    for size in (1, 1_000):
        client = Client({})
        client.publish(WARM_UP, size, {})
        with meter.row(f"publish, {size:,} a frame"):
            client.publish(MESSAGES, size, {})
        client.consume(WARM_UP)
        with meter.row(f"deliver, published {size:,} a frame"):
            client.consume(WARM_UP + MESSAGES)
        frames = [frame for runs in client.delivered() for frame in frames_of(runs, size)]
        warm_up = WARM_UP // size
        for op in ("begin", "ack"):
            client.settle_all(op, frames[:warm_up])
            with meter.row(f"{op}, {size:,} a frame"):
                client.settle_all(op, frames[warm_up:])


def count_through(meter: Meter) -> None:
    """Count what goes through a queue that is empty otherwise: a consumer waits, and gets it at once."""
    client = Client({})
    client.consume(2 * SETTLED)

    def go(messages: int) -> None:
        for _ in range(messages // SETTLED):
            client.publish(SETTLED, SETTLED, {}, reads=False)
            client.drain(SETTLED)

    go(WARM_UP)
    with meter.row(f"publish, deliver and ack, {SETTLED} a frame"):
        go(MESSAGES)


def count_alone(meter: Meter) -> None:
    """Count what one job for one idle worker costs, from its publish to the confirm of its ack."""
    client = Client({})
    client.consume(1)
    client.work_alone(WARM_UP)
    with meter.row("one message to one idle worker"):
        client.work_alone(MESSAGES)


def count_synced(meter: Meter) -> None:
    """Count what a consumer of 32 costs whose acks are synced meanwhile, and confirmed."""
    client = Client({})
    client.publish(2 * WARM_UP + MESSAGES, 100, {})
    client.consume(2 * SETTLED)
    client.drain(WARM_UP, paced=True)
    with meter.row("deliver, ack and confirm, prefetch 32"):
        client.drain(MESSAGES, paced=True)


def count_delayed(meter: Meter) -> None:
    """Count what a delay costs."""
    client = Client({})
    client.consume(WARM_UP + MESSAGES)
    client.publish(WARM_UP, 100, {"delay_ms": DELAY_MS})
    with meter.row("publish delayed, 100 a frame"):
        client.publish(MESSAGES, 100, {"delay_ms": DELAY_MS})
    until_ms = client.broker.after(DELAY_MS)
    with meter.row("due and delivered"):
        while client.broker.advance(until_ms):
            pass
    assert sum(run[3] for runs in client.delivered() for run in runs) == WARM_UP + MESSAGES


def count_consumed(meter: Meter) -> None:
    """Count what consumers of 32 cost for messages of each kind."""
    for name, settings, terms, keys in CONSUMED:
        try:
            client = Client(settings)
            client.publish(WARM_UP, 100, terms, keys)
        except LookupError:
            continue
        with meter.row(f"publish, 100 a frame: {name}"):
            client.publish(MESSAGES, 100, terms, keys)
        client.consume(2 * SETTLED)
        client.drain(WARM_UP)
        with meter.row(f"deliver and ack, prefetch 32: {name}"):
            client.drain(MESSAGES)


def run_all(meter: Meter) -> None:
    """Do the work of every row."""
    with meter.row(NOTHING):
        pass
    rows = (count_steps, count_through, count_alone, count_synced, count_delayed, count_consumed)
    for count in rows:
        count(meter)


def run() -> None:
    """Do it under valgrind, and print which children were made where."""
    gc.set_threshold(5_000, 1_000, 1_000)  # as the server sets it
    meter = Meter()
    run_all(meter)
    for name, begin, end in meter.rows:
        print(name, begin, end, sep="\t")


def counts(side: Side) -> Counts:
    """Return the instructions a message of each row on the code of one side."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"--cachegrind-out-file={folder}/%p"
        work = (sys.executable, "-m", "benchmarks.counted", RUN)
        printed = subprocess.run(
            [*VALGRIND, out, *work],
            stdout=subprocess.PIPE,
            text=True,
            cwd=side.folder,
            env={**side.environment(), "PYTHONHASHSEED": "0"},
            check=True,
        ).stdout
        totals = {
            each.name: int(SUMMARY.findall(each.read_bytes())[0]) for each in Path(folder).iterdir()
        }
    lines = [line.split("\t") for line in printed.splitlines()]
    spent = {name: totals[end] - totals[begin] for name, begin, end in lines}
    nothing = spent.pop(NOTHING)
    return {name: (total - nothing) / MESSAGES for name, total in spent.items()}


def lines(a: Counts, b: Counts) -> list[tuple[str, ...]]:
    """Return a line for each row of either side."""
    return [
        (
            row,
            *(f"{side[row]:,.0f}" if row in side else "-" for side in (a, b)),
            f"{b[row] / a[row]:.3f}" if row in a and row in b else "-",
        )
        for row in {**b, **a}
    ]


def main() -> None:
    """Run as `python -m benchmarks.counted REV_A REV_B`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counted", description=__doc__)
    parser.add_argument("revisions", nargs=2, metavar="REV", help="what git calls the commits")
    revisions = parser.parse_args().revisions
    if not shutil.which("valgrind"):
        raise SystemExit("valgrind is needed: apt-get install valgrind")
    with checked_out(ROOT, revisions, own=False) as sides:
        for side in sides:
            side.check()
        print_table(lines(*map(counts, sides)), HEADS)


if __name__ == "__main__":
    run() if sys.argv[1:] == [RUN] else main()
