"""The works of `make bench-peers`: what is done, with every parameter that a row of the result names.

A work says what both sides do, not how a peer does it: `clients/` holds one module a peer for that, and
`sides.py` the words in which a row tells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.rows import BODY_BYTES

BATCH: Final = 1_000
IN_FLIGHT: Final = 20
DEFAULT_PREFETCH: Final = 1  # of the minibroker client
FRAME_MESSAGES: Final = 500  # the client packs up to this many messages into a frame

# Their windows are refilled by halves: one of 200 makes frames of 100. The others read 100 with one command.
WINDOWED: Final = ("minibroker", "rabbitmq")

RATE: Final = "messages/s"
MICROSECONDS: Final = "us"
BYTES: Final = "bytes/message"
SECONDS: Final = "s"


@dataclass(frozen=True, slots=True)
class Work:
    """One work. `do` is the order that a client process gets (worker.py), or a measurement of backlog.py.

    `window` counts calls that wait at the same time, `batch` the messages of a call. `many_acks` works are
    measured only against peers that can end several messages with one command; minibroker acks each all the same,
    unless a work is `batched`: then its handler gets batches, too, and acks each with one call.
    """

    name: str
    title: str
    do: str
    unit: str = RATE
    batch: int = 1
    window: int = 1
    prefetch: int = 0
    body_bytes: int = BODY_BYTES
    many_acks: bool = False
    batched: bool = False
    clients: int = 1
    sync_only: bool = False  # one durability is enough to know it, and the run must end some day

    @property
    def frame(self) -> str:
        """The messages of a frame of minibroker."""
        if self.do == "cpu":
            return str(self.batch)
        if self.prefetch:
            return f"<={min(self.prefetch, 1_000)}"
        if self.batch == 1 and self.window == 1:
            return "1"
        return str(self.batch) if 1 < self.batch < FRAME_MESSAGES else f"<={FRAME_MESSAGES}"

    @property
    def prefetch_shown(self) -> str:
        """The prefetch, and the client's default beside one that is not."""
        if not self.prefetch:
            return "-"
        if self.prefetch == DEFAULT_PREFETCH:
            return "1"
        return f"{self.prefetch} (default {DEFAULT_PREFETCH})"

    @property
    def step(self) -> int:
        """The messages of a repetition are a multiple of this, so that every call is a whole one."""
        if self.do == "batches":
            return self.batch
        return self.window if self.do == "tasks" else 1


def consuming(
    name: str, prefetch: int, body_bytes: int = BODY_BYTES, sync_only: bool = False
) -> Work:
    """Return a work that consumes at this prefetch and acks each message."""
    title = "consume, ack each message"
    return Work(
        name, title, "consume", prefetch=prefetch, body_bytes=body_bytes, sync_only=sync_only
    )


def many(name: str, prefetch: int) -> Work:
    """Return a work in which the peer ends many messages with one command; minibroker acks each."""
    title = "consume; the peer acks many with one command"
    return Work(name, title, "consume", prefetch=prefetch, many_acks=True)


def batched(name: str, prefetch: int) -> Work:
    """Return a work in which both end many messages with one call."""
    title = "consume, many acked with one call"
    return Work(name, title, "consume", prefetch=prefetch, many_acks=True, batched=True)


def costing(name: str, title: str, many_acks: bool = False) -> Work:
    """Return a work that counts the CPU time of the server, in frames of 100."""
    return Work(name, title, "cpu", MICROSECONDS, 100, IN_FLIGHT, 200, many_acks=many_acks)


def batches(name: str, body_bytes: int = BODY_BYTES, batch: int = BATCH, clients: int = 1) -> Work:
    """Return a work that publishes batches, 20 of them in flight."""
    title = f"publish batches of {batch}"
    if clients > 1:
        title += f" from {clients} processes"
    return Work(
        name,
        title,
        "batches",
        batch=batch,
        window=IN_FLIGHT,
        body_bytes=body_bytes,
        clients=clients,
        sync_only=name != "publish-batch",
    )


# Larger bodies come in smaller batches: 20 MB in one call would measure the sockets' buffers.
WORKS: Final[Sequence[Work]] = (
    Work("publish-one", "one publish at a time", "one", MICROSECONDS),
    Work("publish-one-blocking", "the same, from code that blocks", "one_blocking", MICROSECONDS),
    Work("publish-1000", "single publishes, 1,000 tasks", "tasks", window=1_000),
    batches("publish-batch"),
    consuming("consume-1", 1, sync_only=True),
    consuming("consume-32", 32),
    consuming("consume-1000", 1_000),
    many("consume-32-many", 32),
    many("consume-1000-many", 1_000),
    batched("consume-32-batched", 32),
    batched("consume-1000-batched", 1_000),
    Work("latency", "publish to handler, open loop", "latency", MICROSECONDS, prefetch=32),
    batches("publish-batch-1k", 1_024),
    consuming("consume-1k", 1_000, 1_024, sync_only=True),
    batches("publish-batch-20k", 20 * 1_024, batch=100),
    consuming("consume-20k", 32, 20 * 1_024, sync_only=True),
    batches("clients-4", clients=4),
    Work(
        "cpu-one",
        "server CPU, one message at a time: publish, deliver, ack",
        "cycle",
        MICROSECONDS,
        prefetch=1,
    ),
    costing("cpu", "server CPU: publish, deliver, ack each"),
    costing("cpu-many", "the same; the peer acks many with one command", many_acks=True),
    Work("memory", "memory of a waiting message", "memory", BYTES, BATCH, IN_FLIGHT),
    Work("memory-cold", "the same, --memory-limit of 64 MiB", "memory", BYTES, BATCH, IN_FLIGHT),
    Work("restart", "SIGKILL, then exec to first answer", "restart", SECONDS, BATCH, IN_FLIGHT),
)


def chosen(names: Sequence[str]) -> list[Work]:
    """Return the works with these names; all without names.

    Raises:
        ValueError: nothing is called so.
    """
    if unknown := set(names) - {work.name for work in WORKS}:
        raise ValueError(f"no work is called {', '.join(sorted(unknown))}")
    return [work for work in WORKS if not names or work.name in names]
