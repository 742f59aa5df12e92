"""`python -m benchmarks.micro`: what one message costs in each pure part, in microseconds.

No sockets, no disk, no loop: frames are packed and read as the wire has them, and the core is stepped
with a clock that stands still. When a row of bench.py falls, these say which part it was.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter

from benchmarks.rows import BODY_BYTES

from minibroker import wire
from minibrokerd.core.core import Core
from minibrokerd.core.effects import Outgoing
from minibrokerd.core.inputs import Frame, Hello, Synced, Tick
from minibrokerd.frames import read_frame

CONNECTION = 1
MESSAGES = 20_000
REPETITIONS = 5
LENGTH_BYTES = 4


class Costs:
    """Seconds spent in each part, by name; one entry for each repetition."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Add the time that the block takes."""
        started = perf_counter()
        yield
        self.seconds.setdefault(part, []).append(perf_counter() - started)

    def print(self, title: str) -> None:
        """Print the median cost of one message in each part."""
        for part, seconds in self.seconds.items():
            print(f"{title:<16} {part:<28} {median(seconds) / MESSAGES * 1e6:8.3f} us")


class Stepper:
    """A core with one session, whose batches are synced by hand."""

    def __init__(self) -> None:
        self.core = Core()
        self.core.opened(1, 0, 0, clean=True)
        self.core.apply(Hello(CONNECTION, "micro"), 0, 0)
        self.sync()

    def apply(self, payloads: list[bytes]) -> None:
        """Apply frames that are read already, so that only the core is timed."""
        for frame in [read_frame(payload, CONNECTION, 0.0) for payload in payloads]:
            self.core.apply(frame, 0, 0)

    def sync(self) -> None:
        """Close the open batch and say that it is safe."""
        self.core.apply(Synced(self.core.close_batch()), 0, 0)


def publishes(size: int) -> list[bytes]:
    """Return the payloads of `MESSAGES` messages in frames of `size`."""
    lengths, blob = struct.pack("<II", 0, BODY_BYTES) * size, b"x" * (BODY_BYTES * size)
    part = {"op": "publish", "queue": "q", "count": size}
    payloads = []
    for sequence in range(1, MESSAGES // size + 1):
        header = {"parts": [part], "sequence": sequence, "answered_below": sequence}
        payloads.append(wire.pack_frame(header, b"", lengths, blob)[LENGTH_BYTES:])
    return payloads


def measure(size: int) -> Costs:
    """Time each part for frames of `size` messages."""
    costs = Costs()
    for _ in range(REPETITIONS):
        with costs.of("client: pack publish"):
            payloads = publishes(size)
        with costs.of("server: read publish"):
            frames = [read_frame(payload, CONNECTION, 0.0) for payload in payloads]
        stepper = Stepper()
        with costs.of("core: publish"):
            for frame in frames:
                stepper.core.apply(frame, 0, 0)
        with costs.of("core: synced"):
            stepper.sync()
        consume_all(stepper, costs, size)
    return costs


def receive(core: Core, frame: Frame) -> list[Outgoing]:
    """Apply a receive, and the tick that gives its connection new room after each MiB."""
    outgoing = core.apply(frame, 0, 0).outgoing
    if core.store.jobs:
        outgoing += core.apply(Tick(), 0, 0).outgoing
    return outgoing


def consume_all(stepper: Stepper, costs: Costs, size: int) -> None:
    """Receive every message in deliveries of `size`, then ack each delivery as one run."""
    part: dict[str, object] = {"op": "receive", "queue": "q", "count": size}
    requests = [
        wire.pack_frame({"parts": [part], "request": number})[LENGTH_BYTES:]
        for number in range(1, MESSAGES // size + 1)
    ]
    frames = [read_frame(payload, CONNECTION, 0.0) for payload in requests]
    with costs.of("core: receive (begun)"):
        delivered = [out for frame in frames for out in receive(stepper.core, frame)]
    acks, sequence = [], MESSAGES // size + 1
    for out in delivered:
        origin, first, count, *_ = wire.DELIVERY_RUN.unpack_from(out.columns)
        run = wire.pack_runs([(out.header["token"], origin, first, count)])
        header = {
            "parts": [{"op": "ack", "queue": "q", "runs": 1}],
            "sequence": sequence,
            "answered_below": sequence,
        }
        acks.append(wire.pack_frame(header, run)[LENGTH_BYTES:])
        sequence += 1
    frames = [read_frame(payload, CONNECTION, 0.0) for payload in acks]
    with costs.of("core: ack"):
        for frame in frames:
            stepper.core.apply(frame, 0, 0)
    assert stepper.core.store.queues["q"].counters["acked"] == MESSAGES


def main() -> None:
    """Print the costs for frames of 1, 100 and 500 messages."""
    gc.set_threshold(50_000, 50, 100)  # as the server sets it
    for size in (1, 100, 500):
        measure(size).print(f"frames of {size}")


if __name__ == "__main__":
    main()
