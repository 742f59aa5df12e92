"""What the model keeps beside messages, over restarts: a pause of `q`, and dedupe ids (protocol.md, 5.10).

Both end by the wall clock. What was over once may be there again where that was set back, or be forgotten by then:
of this the model takes the word of the core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Id = tuple[int, int]
FOR_EVER_MS = 2**62


@dataclass(frozen=True, slots=True)
class Known:
    """A dedupe id: what was stored under it, until when it is known, and whether a crash leaves it."""

    id: Id
    until_unix_ms: int
    in_log: bool


@dataclass(slots=True)
class Kept:
    """What stands; `stale` are the ids that were over once, as they were."""

    paused_until_unix_ms: int = 0  # 0: it is not paused
    dedupes: dict[str, Known] = field(default_factory=dict)
    stale: dict[str, Known] = field(default_factory=dict)

    def now(self, unix_ms: int, core: Mapping[str, Id]) -> None:
        """Let what is over end; `core` has the dedupe ids that the core knows now."""
        if self.paused_until_unix_ms <= unix_ms:
            self.paused_until_unix_ms = 0
        self.stale |= {
            name: each for name, each in self.dedupes.items() if each.until_unix_ms <= unix_ms
        }
        for name, known in self.stale.items():
            self.dedupes.pop(name, None)
            if name in core:
                assert core[name] == known.id, f"{name} is of another message"
                self.dedupes[name] = known

    def put(self, name: str, known: Known) -> None:
        """Know a dedupe id anew."""
        self.dedupes[name] = known
        self.stale.pop(name, None)

    def logged(self) -> Kept:
        """Return what a crash leaves of it."""
        dedupes = {name: known for name, known in self.dedupes.items() if known.in_log}
        return Kept(self.paused_until_unix_ms, dedupes, dict(self.stale))
