"""A world that notes what its core does, before any of it may leave."""

from __future__ import annotations

from typing import Any

from harness import World
from model import Model

from minibrokerd.core.effects import Outgoing
from minibrokerd.core.records import CopyMeta, CopyRunMeta, Meta, decode


class Watched(World):
    """A world that notes every delivery when the core makes it, before it may leave."""

    def __init__(self) -> None:
        self.made: list[Outgoing] = []
        self.copies: list[Meta] = []
        super().__init__(auto_sync=False, segment_batches=3)

    def _route(self, effects: Any) -> None:
        said = map(decode, effects.records)
        self.copies += [copy for copy in said if isinstance(copy, CopyMeta | CopyRunMeta)]
        self.made += [out for out in effects.outgoing if out.header["op"] == "deliver"]
        super()._route(effects)


def see_dead_moved(world: World, model: Model) -> None:
    """Tell the model which dead messages left their source because their DLQ had room for them."""
    dlq = world.store.queues.get("q.dlq")
    waiting = {id for id, message in model.messages.items() if message.dead}
    for _, item in dlq.items() if dlq is not None and waiting else ():
        id = item.block.origin, item.first
        if id in waiting:
            model.has_moved(model.messages[id], item.ready_at_ms)
