"""A small log that a real core wrote, the ways to damage it, and what a salvage must have kept."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from log_world import Engine

from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import CopyMeta, PublishMeta, RunMeta, decode
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.format import Kind, Origin, decode_header
from minibrokerd.log.recovery import Recovery
from minibrokerd.log.seam import BATCH_HEADER_BYTES, Batch, Record
from minibrokerd.net.outgoing import slices_of
from minibrokerd.rescue.pieces import Piece

sys.path.append(str(Path(__file__).parent.parent / "core"))
from harness import World

Id = tuple[int, int]


def story(fillers: int = 0) -> list[Batch]:
    """Return what a core wrote about two queues: publishes, an ack, a dead letter, a delay, a second start.

    `fillers` publishes more than that of a few hundred bytes each.
    """
    world = World()
    client = world.hello()
    client.set("emails", max_attempts=1)
    for body in (b"one", b"two", b"three"):
        client.publish("emails", body, body + b" again")
    client.publish("reports", b"r1", b"r2", b"r3")
    taken = client.receive_all("emails", 3)
    client.begin(*taken)
    client.settle("ack", *taken[:1])
    client.settle("nack", *taken[1:2])
    client.publish("reports", b"later", delay_ms=60_000, max_attempts=9, lease_ms=90_000)
    for index in range(fillers):
        client.publish("reports", b"%03d" % index * 200)
    world.restart(clean=False)
    client = world.hello()
    client.publish("emails", b"four")
    client.publish("reports", b"r4", b"r5")
    return world.log


def foreign_story() -> list[Batch]:
    """Return what another broker wrote: ids as in the story, other bodies."""
    world = World()
    client = world.hello()
    for index in range(20):
        client.publish("emails", b"of another log, %03d" % index * 10)
    return world.log


async def write(path: Path, batches: list[Batch], *, segment_bytes: int, closed: bool) -> None:
    """Write batches to a new data directory, with a footer if `closed`."""
    engine = Engine(path, segment_bytes=segment_bytes).open()
    for batch in batches:
        engine.news.clear()
        engine.hand(Batch(engine.log.next_number, batch.records, batch.now_ms, batch.unix_ms))
        await engine.news.wait()
    if closed:
        engine.close()
    else:
        engine.log.abandon()


def segments(path: Path) -> list[Path]:
    """Return the segment files of a data directory in order."""
    return sorted(path.glob("segment-*.log"))


def bodies(path: Path) -> dict[str, dict[Id, bytes]]:
    """Return the messages of a data directory that have not ended, by queue and id, as a start finds them."""
    _, core = _started(path)
    return {name: dict(_messages(queue)) for name, queue in core.store.queues.items()}


def terms(path: Path) -> dict[str, dict[Id, tuple[int, int]]]:
    """Return attempts and lease of the messages that have some of their own, by queue and id."""
    _, core = _started(path)
    return {
        name: {
            (item.block.origin, sequence): (
                item.block.terms.max_attempts,
                item.block.terms.lease_ms,
            )
            for _, item in queue.group.items()
            for sequence in range(item.first, item.stop)
            if any(item.block.terms)
        }
        for name, queue in core.store.queues.items()
    }


def _started(path: Path) -> tuple[Recovery, Core]:
    recovery = Recovery(DataDirectory(path, FileOps()), FileOps())
    core = Core(BodyStore())
    for batch in recovery.batches():
        core.replay(batch)
    core.opened(recovery.epoch + 1, recovery.now_ms, 2**41, clean=True)
    return recovery, core


def _messages(queue: Queue) -> list[tuple[Id, bytes]]:
    found = []
    for _, item in queue.group.items():
        block = item.block
        for sequence in range(item.first, item.stop):
            _, text = slices_of(block, sequence, sequence + 1)
            found.append(((block.origin, sequence), bytes(text)))
    return found


@dataclass(frozen=True)
class Place:
    """A record and the bytes it stands in."""

    start: int
    end: int
    record: Record


@dataclass(frozen=True)
class Start:
    """The numbers that a start goes on with: nothing below them is given again."""

    epoch: int
    next_queue_number: int
    sequences: dict[int, int]


def origin_of(data: bytes) -> Origin:
    """Return the origin of a segment file whose first header holds."""
    header = decode_header(data, 0)
    assert header is not None
    return header.origin


def start_of(path: Path) -> Start:
    """Return where a start on a data directory goes on."""
    recovery, core = _started(path)
    queues = core.store.by_number
    sequences = {number: queue.next_sequence for number, queue in queues.items()}
    return Start(recovery.epoch + 1, core.store.next_queue_number, sequences)


def places(found: list[Piece]) -> list[Place]:
    """Return where the records of whole batches of data stand."""
    result = []
    for piece in found:
        assert piece.header is not None
        assert piece.whole
        at = piece.start + BATCH_HEADER_BYTES
        for record in piece.records:
            if piece.header.kind is Kind.DATA:
                result.append(Place(at, at + record.size_bytes, record))
            at += record.size_bytes
    return result


def touched(found: list[Piece], at: int) -> set[Id]:
    """Return the ids of the messages that the record at byte `at` carries."""
    for place in places(found):
        if place.start <= at < place.end:
            return set(carried(place.record))
    return set()


def carried(record: Record) -> list[Id]:
    """Return the ids of the messages whose bytes a record has."""
    meta = decode(record)
    if isinstance(meta, PublishMeta):
        return [(n, first + i) for n, first in meta.targets for i in range(meta.count)]
    if isinstance(meta, RunMeta):
        return [(meta.queue, meta.first + i) for i in range(meta.count)]
    return [(meta.origin, meta.sequence)] if isinstance(meta, CopyMeta) else []
