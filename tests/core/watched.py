"""A world that notes what its core does, before any of it may leave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from harness import World

from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.durable.blocks import copied_run
from minibrokerd.core.model.effects import Outgoing
from minibrokerd.core.model.records import (
    CopyMeta,
    CopyPartMeta,
    CopyRunMeta,
    CopySomeMeta,
    Meta,
    decode,
)
from minibrokerd.core.model.wheel import TICK_MS
from minibrokerd.core.verbs.takers import LOOK_AGAIN_MS
from minibrokerd.log.seam import Record
from model import Model


class Watched(World):
    """A world that notes every delivery when the core makes it, before it may leave."""

    def __init__(self) -> None:
        self.made: list[Outgoing] = []
        self.copies: list[Meta] = []
        self.copied: list[
            int
        ] = []  # how many of these stand in each batch that ended, and before it
        super().__init__(auto_sync=False, segment_batches=3)

    def _route(self, effects: Any) -> None:
        for _, records, _ in effects.ended:
            self._note_copies(records)
            self.copied.append(len(self.copies))
        self._note_copies(effects.records)
        self.made += [out for out in effects.outgoing if out.header["op"] == "deliver"]
        super()._route(effects)

    def _note_copies(self, records: Iterable[Record]) -> None:
        for record in records:
            self.copies += _copies(record)


def see_dead_moved(world: World, model: Model) -> None:
    """Tell the model which dead messages left their source because their DLQ had room for them."""
    dlq = world.store.queues.get("q.dlq")
    waiting = {id for id, message in model.messages.items() if message.dead}
    for _, item in dlq.group.items() if dlq is not None and waiting else ():
        id = item.block.origin, item.first
        if id in waiting:
            model.has_moved(model.messages[id], item.ready_at_ms)


def see_expired(world: World, model: Model) -> None:
    """Tell the model which messages are gone because their time to live is over: none may still wait.

    Within its tick it may have fired or not; what came back, or was there at a start, goes with the next one.
    """
    over = [m for m in model.messages.values() if m.expires_ms <= world.now_ms]
    over = [message for message in over if model.may_expire(message)]
    waiting, dead = (world.states(name) if over else {} for name in ("q", "q.dlq"))
    doomed = world.queue("q").group.doomed if over else None
    doomed_ids = {(m.block.origin, m.sequence) for m in (doomed or {}).values()}
    for message in sorted(over, key=lambda each: (each.id not in dead, each.id)):
        if message.id in waiting and message.id not in doomed_ids:
            late = message.expires_ms + TICK_MS <= world.now_ms
            waited = world.now_ms < model.awaited_ms + LOOK_AGAIN_MS + 2 * TICK_MS
            may = waited or world.store.sums.lifetimes.overdue
            assert may or not late, f"{message.id} outlives its time"
        else:
            model.expire(message)


def _copies(record: Record) -> Iterator[Meta]:
    """Yield what a record copies; a part of a publish as a run for each of its spans."""
    meta = decode(record)
    if isinstance(meta, CopyPartMeta | CopySomeMeta):
        for span in copied_run(BodyStore(), meta, record, 0, 0)[1]:
            run = CopyRunMeta(*(getattr(meta, name) for name in CopyRunMeta.__struct_fields__))
            delay_ms = span.ready_at_ms - meta.ready_at_ms
            count = span.stop - span.first
            yield msgspec.structs.replace(
                run, first=span.first, count=count, key=span.key, delay_ms=delay_ms
            )
    elif isinstance(meta, CopyMeta | CopyRunMeta):
        yield meta
