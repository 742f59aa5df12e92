"""The core of a broker of a shard: it reads a log, and writes what another log needs of a group. Decision 83."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from core_client import Client as CoreClient
from core_client import Delivered
from harness import World as CoreWorld
from msgspec import structs
from shard_places import Book, group_of

from minibrokerd.core.model.effects import Effects
from minibrokerd.core.model.inputs import Forward
from minibrokerd.core.model.kept import CANCELLED, DEDUPE, KEY, KEY_CIRCUIT, RATE, RESULT
from minibrokerd.core.model.records import (
    CopyMeta,
    Meta,
    QueueMeta,
    ReserveMeta,
    RunMeta,
    StateMeta,
    decode,
    encode,
)
from minibrokerd.log.seam import Batch, Place, Record
from minibrokerd.net.outgoing import frame_of

OF_A_QUEUE: Final = {kind.number for kind in (CANCELLED, DEDUPE, KEY, KEY_CIRCUIT, RATE, RESULT)}


class Shell(CoreWorld):
    """A core that has read a log; its batches are safe when its broker says so."""

    def __init__(
        self,
        book: Book,
        unix_ms: int,
        hands_out: Callable[[list[Delivered]], None] = lambda messages: None,
    ) -> None:
        """`hands_out` is told in the order in which the core does, whenever the answers leave."""
        self._hands_out = hands_out
        super().__init__(auto_sync=False)
        self.log = list(book.batches)
        self.epoch = book.epoch - 1
        self.unix_ms = unix_ms
        self._start(clean=False)
        # A queue that came in has a number of another range, and that range is not ours.
        self.store.next_queue_number = book.next_number

    def _route(self, effects: Effects) -> None:
        for each in effects.outgoing:
            if each.header["op"] == "deliver":
                seen = CoreClient(self, 0, "")
                seen.take_frame(b"".join(frame_of(each.header, each.columns, list(each.bodies))))
                self._hands_out(seen.messages())
        super()._route(effects)

    def _place(self, batch: Batch) -> None:
        batch.place = Place(batch.number, 88)  # nothing is read back here


def copies(book: Book, group: str, now_ms: int, unix_ms: int) -> tuple[Record, ...]:
    """Return what copying forward writes of one group, in the state to which a log was read.

    Each log has a time of its own, by which its lines are in order: `now_ms` is that of the log to which they go.
    """
    core = Shell(book, unix_ms).core
    shift_ms = now_ms - core.store.now_ms
    queues = core.store.queues.values()
    numbers = {queue.number for queue in queues if group_of(queue.name) == group}
    found: list[Record] = []
    upto = core.synced
    while core.clear_below <= upto:
        effects = core.apply(Forward(upto, 2**30), core.store.now_ms, unix_ms)
        for _, records, _ in effects.ended:
            found += records
        found += effects.records
    return tuple(_shifted(each, shift_ms) for each in found if _is_about(decode(each), numbers))


def _shifted(copy: Record, shift_ms: int) -> Record:
    says = decode(copy)
    if not isinstance(says, CopyMeta | RunMeta):
        return copy
    says = structs.replace(says, ready_at_ms=says.ready_at_ms + shift_ms)
    return Record(copy.type, encode(says), copy.tail, copy.tail_checksum, says)


def _is_about(says: Meta, numbers: set[int]) -> bool:
    if isinstance(says, StateMeta):
        return says.kind in OF_A_QUEUE and says.key[0] in numbers
    if isinstance(says, QueueMeta):
        return says.number in numbers
    return isinstance(says, ReserveMeta | CopyMeta | RunMeta) and says.queue in numbers
