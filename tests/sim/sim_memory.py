"""How much of its messages a broker of a world keeps in memory, and whether it starts from side indexes.

A world has some hundred messages of some hundred bytes: with the limits of the product none of them ever leaves
memory, and no side index has more than one slice. So half of the worlds have limits of their size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from types import ModuleType
from typing import Any

from minibrokerd.core.durable import paging
from minibrokerd.core.model import cold, paces
from minibrokerd.core.model.sums import Sums
from minibrokerd.engine import indexer, pager

Limit = tuple[ModuleType | type, str]
NO_LIMIT_BYTES = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """What was drawn for one world; `limits` are constants of the product, and what they are meanwhile.

    `backlog` is how many times as much is published, so that messages wait.
    """

    digests: bool
    limit_bytes: int
    limits: dict[Limit, Any]
    backlog: int = 1

    @classmethod
    def drawn(cls, random: Random) -> Memory:
        """Draw them: in half of the worlds, they are those of the product."""
        if random.random() < 0.5:
            return cls(random.random() < 0.3, NO_LIMIT_BYTES, {})
        limits: dict[Limit, int] = {
            (indexer, "SLICE_BYTES"): random.choice((1_000, 4_000, 16_000)),
            (indexer, "SLICE_RECORDS"): random.choice((10, 100, 4_096)),
            (pager, "LOOK_BYTES"): random.choice((100, 300, 2_000)),
            (pager, "FILL_BYTES"): random.choice((0, 500, 10_000)),
            (pager, "MOST_HOT_BYTES"): random.choice((0, 0, 500, 2_000)),
            (paging, "AHEAD_MESSAGES"): random.choice((1, 2, 8)),
            (paging, "AHEAD_BYTES"): random.choice((500, 4_000)),
            (Sums, "large_bytes"): 0,
            (paging, "LOOKS"): random.choice((3, 20, 1_000)),
            (cold, "CHUNK_BYTES"): random.choice((100, 2_000, 20_000)),
            (cold, "CHUNK_FRAMES"): random.choice((1, 3, 100)),
            (paging, "SMALL_BYTES"): random.choice((0, 0, 300)),
            (paging, "YOUNG_MS"): random.choice((0, 0, 100)),
            (paces, "SOON_MS"): random.choice((50, 1_000)),
        }
        limit_bytes = random.choice((16_000, 64_000, NO_LIMIT_BYTES, NO_LIMIT_BYTES))
        return cls(random.random() < 0.8, limit_bytes, limits, random.choice((2, 5, 15)))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the limits hold; a process runs one world at a time."""
        before = {(module, name): getattr(module, name) for module, name in self.limits}
        for (module, name), value in self.limits.items():
            setattr(module, name, value)
        try:
            yield
        finally:
            for (module, name), value in before.items():
                setattr(module, name, value)
