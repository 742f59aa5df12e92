"""`python -m benchmarks.micro`: what one message costs in each pure part, in microseconds.

No sockets, no disk, no loop: frames are packed and read as the wire has them, and the core is stepped
with a clock that stands still. When a row of bench.py falls, these say which part it was.
"""

from __future__ import annotations

import gc
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter

from benchmarks.gauges import META_BYTES
from benchmarks.rows import BODY_BYTES

from minibroker.contract import wire
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.effects import Outgoing
from minibrokerd.core.model.inputs import Frame, Hello, Synced, Tick
from minibrokerd.core.model.wheel import TICK_MS, Timer, Wheel
from minibrokerd.log.format import Header, Kind, Origin, encode_batch, encode_body, scan
from minibrokerd.log.seam import Record
from minibrokerd.net.frames import read_frame

CONNECTION = 1
MESSAGES = 20_000
REPETITIONS = 5
LENGTH_BYTES = 4
ORIGIN = Origin(bytes(16), 1, 1)
PUBLISH = 5  # any type of record: the format looks at none but its own


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

    def microseconds(self) -> dict[str, float]:
        """Return the median cost of one message in each part."""
        return {part: median(some) / MESSAGES * 1e6 for part, some in self.seconds.items()}

    def print(self, title: str) -> None:
        """Print what a message costs in each part."""
        for part, cost_us in self.microseconds().items():
            print(f"{title:<16} {part:<28} {cost_us:9.4f} us")


class Stepper:
    """A core with one session, whose batches are synced by hand."""

    def __init__(self) -> None:
        self.core = Core(BodyStore())
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


def receive(stepper: Stepper, frame: Frame) -> list[Outgoing]:
    """Apply a receive, and the tick that gives its connection new room after each MiB.

    The first receive writes that its session takes from the queue: what rests on that has to be safe.
    """
    core = stepper.core
    outgoing = core.apply(frame, 0, 0).outgoing
    if core.store.brimful:
        stepper.sync()
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
        delivered = [out for frame in frames for out in receive(stepper, frame)]
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
    assert stepper.core.store.queues["q"].group.counters["acked"] == MESSAGES


def measure_wheel() -> Costs:
    """Time what a lease costs: set, and cancelled by its ack or fired at its end."""
    costs = Costs()
    lease_ms = 30_000
    for _ in range(REPETITIONS):
        wheel = Wheel(0)
        timers = [Timer(None) for _ in range(MESSAGES)]
        with costs.of("wheel: schedule"):
            for number, timer in enumerate(timers):
                wheel.schedule(timer, lease_ms + number)
        with costs.of("wheel: move"):
            for number, timer in enumerate(timers):
                wheel.schedule(timer, 2 * lease_ms + number)
        with costs.of("wheel: fire"):
            fired, now_ms = 0, 2 * lease_ms + MESSAGES + TICK_MS
            while fired < MESSAGES and (wheel.next_deadline_ms() or now_ms) <= now_ms:
                fired += len(wheel.advance(now_ms, MESSAGES))
        assert fired == MESSAGES
        for number, timer in enumerate(timers):
            wheel.schedule(timer, 3 * lease_ms + number)
        with costs.of("wheel: cancel"):
            for timer in timers:
                wheel.cancel(timer)
    return costs


def measure_log(size: int) -> Costs:
    """Time a segment as bytes: batches with one publish of `size` messages, written and read back."""
    costs = Costs()
    bodies = b"x" * (BODY_BYTES * size)
    record = Record(
        PUBLISH, bytes(META_BYTES), bodies, zlib.crc32(bodies)
    )  # summed once, by the session
    for _ in range(REPETITIONS):
        with costs.of("log: encode batch"):
            batches = [batch_of(record, number) for number in range(1, MESSAGES // size + 1)]
        segment = b"".join(batches)
        with costs.of("log: scan"):
            found = sum(1 for _ in scan(segment, ORIGIN, 1))
        assert found == len(batches)
    return costs


def batch_of(record: Record, number: int) -> bytes:
    """Return the bytes of a batch with one record."""
    body = encode_body([record])
    sums = (body.body_bytes, body.record_count, body.heads_checksum)
    return encode_batch(Header(ORIGIN, number, number - 1, 1, Kind.DATA, *sums, 0, 0), body)


def main() -> None:
    """Print the costs for frames of 1, 100 and 500 messages."""
    gc.set_threshold(5_000, 1_000, 1_000)  # as the server sets it
    for size in (1, 100, 500):
        measure(size).print(f"frames of {size}")
        measure_log(size).print(f"frames of {size}")
    measure_wheel().print("timers")


if __name__ == "__main__":
    main()
