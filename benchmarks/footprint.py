"""`python -m benchmarks.footprint`: resident bytes of a waiting message beside its bytes as they came.

Each row is a process of its own with a core alone: no sockets and no log, so nothing else grows. Its messages wait
as they were published: plain ones, each with a key of its own, each with a delay of its own, or with both; or they
were received: `begun` ones are in work, `retried` ones failed once and wait for their next attempt. `bound` and
`topics` are bindings of one queue instead, beside what the estimate of memory counts of their entries: of a direct
exchange, each with a pattern of its own; of a topic exchange, each with 20 words of its own.
"""

from __future__ import annotations

import argparse
import gc
import os
import struct
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.micro import CONNECTION, LENGTH_BYTES, Stepper, receive
from benchmarks.processes import resident_bytes
from benchmarks.rows import BODY_BYTES

from minibroker.contract import wire
from minibrokerd.net.frames import read_frame

HOUR_MS = 3_600_000
SYNC_EVERY = 500  # frames
KINDS = ("plain", "keyed", "delayed", "both", "begun", "retried")
BINDINGS = ("bound", "topics")
SIZES = (100, 1)


def frames(kind: str, count: int, size: int) -> Iterator[bytes]:
    """Yield the payloads of `count` messages in frames of `size`, with what the kind says of each."""
    lengths, blob = struct.pack("<II", 0, BODY_BYTES) * size, b"x" * (BODY_BYTES * size)
    for number in range(count // size):
        ids = range(number * size, (number + 1) * size)
        columns, names = b"", []
        if kind in ("delayed", "both"):
            names.append("delay_ms")
            # In no order, spread over an hour: as retries and reminders are.
            columns += struct.pack(f"<{size}Q", *(HOUR_MS + id * 7_919 % HOUR_MS for id in ids))
        if kind in ("keyed", "both"):
            names.append("key")
            keys = [b"customer-%07d" % id for id in ids]
            columns += struct.pack(f"<{size}I", *map(len, keys)) + b"".join(keys)
        part = {"op": "publish", "queue": "q", "count": size, "columns": names}
        header = {"parts": [part], "sequence": number + 1, "answered_below": number + 1}
        yield wire.pack_frame(header, columns, lengths, blob)[LENGTH_BYTES:]


def take(stepper: Stepper, count: int, *, fails: bool) -> None:
    """Receive all messages, 100 at a time, and let them fail, each with a delay of its own."""
    part: dict[str, object] = {"op": "receive", "queue": "q", "count": 100}
    nack = {"op": "nack", "queue": "q", "runs": 1}
    sequence = 2 * count
    for number in range(1, count // 100 + 1):
        payload = wire.pack_frame({"parts": [part], "request": number})[LENGTH_BYTES:]
        for out in receive(stepper, read_frame(payload, CONNECTION, 0.0)):
            origin, first, some, *_ = wire.DELIVERY_RUN.unpack_from(out.columns)
            for at in range(first, first + some) if fails else ():
                columns = wire.pack_runs([(out.header["token"], origin, at, 1)])
                columns += wire.pack_strings([b"Error"]) + wire.pack_strings([b"it did not work"])
                header = {
                    "parts": [{**nack, "delay_ms": HOUR_MS + at * 7_919 % HOUR_MS}],
                    "sequence": sequence,
                    "answered_below": sequence,
                }
                payload = wire.pack_frame(header, columns)[LENGTH_BYTES:]
                stepper.core.apply(read_frame(payload, CONNECTION, 0.0), 0, 0)
                sequence += 1
        stepper.sync()


def measure(kind: str, count: int, size: int) -> float:
    """Return the resident bytes that each message took in this process beside its own."""
    gc.set_threshold(5_000, 1_000, 1_000)  # as the server sets it
    stepper, came = Stepper(), 0
    warm = 0
    for number, payload in enumerate(frames(kind, count + 20 * size, size)):
        frame = read_frame(payload, CONNECTION, 0.0)
        assert frame.parts, "it was read"
        if number == 20:  # what is imported and made once is there
            stepper.sync()
            gc.collect()
            warm = resident_bytes(os.getpid())
        if number >= 20:
            came += len(frame.extent.tail) if frame.extent is not None else 0
        stepper.core.apply(frame, 0, 0)
        if number % SYNC_EVERY == SYNC_EVERY - 1:
            stepper.sync()
    stepper.sync()
    if kind in ("begun", "retried"):
        take(stepper, count + 20 * size, fails=kind == "retried")
    group = stepper.core.store.queues["q"].group
    assert group.count() == count + 20 * size
    gc.collect()
    return (resident_bytes(os.getpid()) - warm - came) / count


def measure_bindings(kind: str, count: int) -> float:
    """Return the resident bytes that each binding took in this process beside its entry."""
    gc.set_threshold(5_000, 1_000, 1_000)
    stepper = Stepper()
    words, type = (".w" * 19, "topic") if kind == "topics" else ("", "direct")
    asked: list[dict[str, object]] = [{"op": "exchange_set", "name": "e", "type": type}]
    asked += [
        {"op": "bind", "exchange": "e", "queue": "q", "pattern": f"customer-{number:07}{words}"}
        for number in range(count)
    ]
    warm = 0
    for number, part in enumerate(asked):
        if number == 20:
            gc.collect()
            warm = resident_bytes(os.getpid())
        payload = wire.pack_frame({"parts": [part], "request": number + 1})[LENGTH_BYTES:]
        stepper.core.apply(read_frame(payload, CONNECTION, 0.0), 0, 0)
        stepper.sync()
    store = stepper.core.store
    assert store.exchanges.bindings == count
    gc.collect()
    return (resident_bytes(os.getpid()) - warm - store.sums.kept_bytes) / count


def main() -> None:
    """Print each row, or the one that is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.footprint", description=__doc__)
    parser.add_argument("--count", type=int, default=200_000, help="messages of a row")
    parser.add_argument(
        "--only", nargs=2, metavar=("KIND", "SIZE"), help=f"one of {KINDS + BINDINGS}"
    )
    asked = parser.parse_args()
    if asked.only:
        kind, size = asked.only
        if kind in BINDINGS:
            count = min(asked.count, 20_000)
            print(f"{kind}: {measure_bindings(kind, count):.1f} bytes")
            return
        print(f"{kind} in frames of {size}: {measure(kind, asked.count, int(size)):.1f} bytes")
        return
    for kind in (*KINDS, *BINDINGS):
        for size in SIZES if kind in KINDS else SIZES[:1]:
            own = ["--count", str(asked.count), "--only", kind, str(size)]
            subprocess.run([sys.executable, "-m", "benchmarks.footprint", *own], check=True)


if __name__ == "__main__":
    main()
