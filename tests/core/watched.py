"""A world that notes what its core does, before any of it may leave."""

from __future__ import annotations

from typing import Any

from harness import World

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
