"""The table of stamps, and the rows of `make profile`: which points a message passes, and in which process.

A trip is one message that nothing overlaps: it goes through its points in their order, so each span is what lies
between two of them. A cycle is a frame of a busy consumer, whose way overlaps with that of the next one: there the
time of each process is divided among the functions that it is in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.spans.stamps import Only

CLIENT, KERNEL, SERVER, DISK = "client", "kernel", "server", "disk"
CALLED: Final = "called"  # what a workload itself does: publishes,
HANDLED: Final = "handled"  # or has the message in hand


@dataclass(frozen=True, slots=True)
class Point:
    """Where a trip passes: the begin or the end of a function in a process, and what lies before it.

    `names` are alternatives of which the first one counts. With `is_last` it is the last such moment before
    the next point, else the first one behind the point before.
    """

    span: str
    place: str
    process: str
    names: Sequence[str]
    is_end: bool = False
    is_last: bool = False


def is_delivery(header: Mapping[str, Any], *_: object) -> bool:
    """Return whether `frame_of` packs a delivery."""
    return bool(header["op"] == "deliver")


NET: Final = "minibrokerd.net.connection:"
RECEIVED: Final = NET + "ServerConnection.data_received"
PARSED: Final = NET + "read_frame"
PACKED: Final = NET + "frame_of"
FLUSHED: Final = NET + "ServerConnection.flush"
AHEAD: Final = NET + "ServerConnection.ahead()"
APPLIED: Final = "minibrokerd.core.core:Core.apply"
ENCODED: Final = "minibrokerd.log.format:encode_body"
WRITTEN: Final = "minibrokerd.log.fileops:FileOps.write_synced"
SERVER_STAMPS: Final[Mapping[str, Only | None]] = {
    RECEIVED: None,
    PARSED: None,
    APPLIED: None,
    ENCODED: None,
    WRITTEN: None,
    PACKED: is_delivery,
    FLUSHED: None,
    AHEAD: None,
}

READ: Final = "minibroker.session.machine:Machine.received"
UNPACKED: Final = "minibroker.session.session:unpack_delivery"
AIO_FLUSH: Final = "minibroker.aio.driver:Driver.flush"
AIO_WRITE: Final = "minibroker.aio.link:Link.write"
AIO_RECEIVED: Final = "minibroker.aio.link:Link.data_received"
SYNC_FLUSH: Final = "minibroker.sync.steps:Steps.flush"
SYNC_WRITE: Final = "minibroker.sync.link:Link.write"
SYNC_SLEEP: Final = "minibroker.sync.driver:Driver._sleep"
SYNC_READ: Final = "minibroker.sync.link:Link.read"
CLIENT_STAMPS: Final = {
    "asyncio": (READ, UNPACKED, AIO_FLUSH, AIO_WRITE, AIO_RECEIVED),
    "blocking": (READ, UNPACKED, SYNC_FLUSH, SYNC_WRITE, SYNC_SLEEP, SYNC_READ),
}


def leaving(process: str, kind: str) -> list[Point]:
    """Return the points up to a client's write: the peer may be at work before that has returned."""
    if kind == "asyncio":
        return [
            Point("noted, and the rest of the loop's turn", CLIENT, process, [AIO_FLUSH]),
            Point("frame packed, entered in the window", CLIENT, process, [AIO_WRITE]),
        ]
    return [
        Point("noted, under the mutex", CLIENT, process, [SYNC_FLUSH]),
        Point("frame packed, entered in the window", CLIENT, process, [SYNC_WRITE]),
    ]


def coming(process: str, kind: str, *, is_delivery: bool) -> list[Point]:
    """Return the points at which a client reads."""
    woken = {"asyncio": (AIO_RECEIVED, False), "blocking": (SYNC_SLEEP, True)}[kind]
    points = [
        Point(
            "sent, way, the client's thread wakes up",
            KERNEL,
            process,
            [woken[0]],
            woken[1],
            is_delivery,
        )
    ]
    if kind == "blocking":
        points.append(Point("recv()", CLIENT, process, [SYNC_READ], True, is_delivery))
    read = UNPACKED if is_delivery else READ
    return [*points, Point("frame read", CLIENT, process, [read], is_end=True)]


TAKEN: Final = [
    Point("sent, way, the server's loop wakes up", KERNEL, "server", [RECEIVED]),
    Point("frame read and checked", SERVER, "server", [PARSED], is_end=True),
    Point("core", SERVER, "server", [APPLIED], is_end=True),
]
SAFE: Final = [
    Point("turn of the engine, batch encoded", SERVER, "server", [ENCODED], is_end=True),
    Point("to whoever writes", SERVER, "server", [WRITTEN]),
    Point("written and synced", DISK, "server", [WRITTEN], is_end=True),
]
DELIVERED: Final = [
    Point("core hands it out, delivery packed", SERVER, "server", [PACKED], is_end=True),
    Point("to the end of the turn", SERVER, "server", [FLUSHED]),
]


@dataclass(frozen=True, slots=True)
class Row:
    """One row with one kind of client. `clients` are its processes and what they do.

    A row without points is one of cycles. `messages` are those that count, behind `WARM_UP` others.
    """

    name: str
    kind: str
    clients: Mapping[str, str]
    messages: int
    points: Sequence[Point] = ()
    prefetch: int = 0

    @property
    def title(self) -> str:
        """Its name, and its client."""
        return f"{self.name}, {self.kind}"

    @property
    def start(self) -> Point:
        """Where a trip begins."""
        name = CALLED if "producer" in self.clients else HANDLED
        return Point("", CLIENT, next(iter(self.clients)), [name])


def lone(kind: str) -> Row:
    """Return the row of one publish at a time."""
    confirmed = [
        Point("to the answer, which is packed", SERVER, "server", [AHEAD, FLUSHED]),
        *coming("producer", kind, is_delivery=False),
        Point("waiter answered, the caller goes on", CLIENT, "producer", [CALLED], is_end=True),
    ]
    points = [*leaving("producer", kind), *TAKEN, *SAFE, *confirmed]
    return Row("lone", kind, {"producer": "publish"}, 2_000, points)


def handler(kind: str) -> Row:
    """Return the row of a message to an idle consumer, whose producer waits between two of them."""
    points = [*leaving("producer", kind), *TAKEN, *SAFE, *DELIVERED]
    points += coming("consumer", kind, is_delivery=True)
    points.append(Point("into the hands of the handler", CLIENT, "consumer", [HANDLED]))
    clients = {"producer": "publish-now-and-then", "consumer": "consume"}
    return Row("handler", kind, clients, 1_000, points, prefetch=32)


def consume_one(kind: str) -> Row:
    """Return the row of a consumer that gets the next message for its ack."""
    points = [Point("handler, ack noted", CLIENT, "consumer", [HANDLED], is_end=True)]
    if kind == "blocking":
        points.clear()  # the end of `process()` writes: it is over when the server has the ack
    points += [
        *leaving("consumer", kind),
        *TAKEN,
        *DELIVERED,
        *coming("consumer", kind, is_delivery=True),
        Point("into the hands of the handler", CLIENT, "consumer", [HANDLED]),
    ]
    return Row("consume-1", kind, {"consumer": "fill-and-consume"}, 2_000, points, prefetch=1)


def consume_many(kind: str) -> Row:
    """Return the row of a consumer that acks each and gets frames of about 16."""
    return Row("consume-32", kind, {"consumer": "fill-and-consume"}, 40_000, prefetch=32)


KINDS: Final = tuple(CLIENT_STAMPS)
ROWS: Final = [make(kind) for make in (lone, handler, consume_one, consume_many) for kind in KINDS]
NAMES: Final = list(dict.fromkeys(row.name for row in ROWS))

# What a thread of a busy row is in: where it counts, and what that is called. None of them: the empty name.
INSIDE: Final[Mapping[str, tuple[str, str]]] = {
    RECEIVED: (SERVER, "connection: frames cut and handed on"),
    PARSED: (SERVER, "frame read and checked"),
    APPLIED: (SERVER, "core"),
    ENCODED: (SERVER, "batch encoded"),
    WRITTEN: (DISK, "written and synced"),
    PACKED: (SERVER, "delivery packed"),
    FLUSHED: (KERNEL, "joined, and sent by the transport"),
    READ: (CLIENT, "frames cut, header read, acks matched, buffer filled"),
    UNPACKED: (CLIENT, "delivery unpacked"),
    AIO_FLUSH: (CLIENT, "begins and acks packed"),
    AIO_WRITE: (KERNEL, "sent by the transport"),
    AIO_RECEIVED: (CLIENT, "what a read leads to"),
    SYNC_FLUSH: (CLIENT, "begins and acks packed"),
    SYNC_WRITE: (KERNEL, "send()"),
    SYNC_SLEEP: (KERNEL, "poll()"),
    SYNC_READ: (KERNEL, "recv()"),
    HANDLED: (CLIENT, "the handler: process() around nothing"),
    "": (KERNEL, "none of these: the loop, iteration, system calls, waiting"),
}
