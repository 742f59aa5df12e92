"""A replicated stream, as far as a log needs one: entries with consecutive sequences, and a fence.

`NatsStream` is the real one, on JetStream; tests have a simulated one. The rules behind it are those of JetStream,
measured, and a simulated stream must be as bad:

- `append` names the sequence that it expects to be the last one. That is compared by the stream's leader with what
  it has *proposed*, committed or not; numbers are compared, not contents. So whoever appends has one append in
  flight, and an expectation that was ever refused is never made good by taking the number out of the refusal.
- An append without an answer has an **unknown** outcome. It may be stored still, seconds later, unless an append
  that expects the same sequence, or a later one, was acked meanwhile.
- An acked append is the only statement about the present. `read` may be answered by a replica that is behind: what
  it returns is committed and never changes, what it lacks may be there all the same. `info` is a hint, and may be
  20 s old.
- An append of several parts is atomic: all of them are there under consecutive sequences, or none is.
- `purge` is fenced by nothing, so it goes by what the log itself says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

PART_BYTES: Final = 900_000  # of one entry; what is larger is appended in parts


class Acked(NamedTuple):
    """The append is stored by a majority; `sequence` is that of its last part."""

    sequence: int


class Refused(NamedTuple):
    """Nothing was stored: the last sequence is another one. `last` is what the leader says, committed or not."""

    last: int


class Unknown(NamedTuple):
    """There was no answer, or one that leaves it open: it may be stored, now or later.

    `is_led`: whether somebody may have taken it; False: nobody listened (the stream has no leader for now).
    """

    reason: str
    is_led: bool = True


class NoRoom(NamedTuple):
    """Nothing was stored, and nothing will be: the stream is full. `reason` is the server's text."""

    reason: str


Outcome = Acked | Refused | Unknown | NoRoom


class Entry(NamedTuple):
    """One part of an append that is stored."""

    sequence: int
    is_epoch: bool
    body: bytes


class Info(NamedTuple):
    """What some server believes of the stream: a hint. `leader` is the name of a server, "" if it knows of none.

    An empty stream has `last` = `first` - 1. `behind` are those of `servers` that are away, or not caught up.
    `most_bytes` is what it may hold; 0 or less: it has no limit.
    """

    first: int
    last: int
    size_bytes: int
    leader: str
    servers: tuple[str, ...]
    behind: tuple[str, ...]
    most_bytes: int = 0


class StreamAway(Exception):
    """Nobody answered a question, or nobody could; it may be asked again."""


class EntriesGone(Exception):
    """The entry that was asked for was purged; `first` is the oldest one behind it that a replica has."""

    def __init__(self, wanted: int, first: int) -> None:
        super().__init__(f"entry {wanted} is gone, the next one there is {first}")
        self.wanted = wanted
        self.first = first


class Stream(Protocol):
    """One replicated stream. All calls come from one event loop; one `append` at a time."""

    name: str  # for texts
    beside: (
        str  # the name of the server that is on this machine; empty: none is, or it is not known
    )

    async def append(
        self, parts: Sequence[bytes], expected: int, *, is_epoch: bool = False
    ) -> Outcome:
        """Store parts of at most `PART_BYTES` each behind the entry `expected` (0: as the first ones), or none.

        An epoch record is one part; it stands under a subject of its own, and is an entry as any other.
        Raises nothing that the world is to blame for: what is not known is `Unknown`. A call that is cancelled
        has an unknown outcome, too.
        """
        ...

    def begin(
        self, parts: Sequence[bytes], expected: int, told: Callable[[Outcome], object]
    ) -> None:
        """Store parts as `append` does, and without waiting: `told(outcome)` follows, not within this call."""
        ...

    async def read(self, first: int, most_bytes: int) -> list[Entry]:
        """Return entries from `first` on without a gap, of about `most_bytes` together, but at least one.

        Empty: the replica that was asked has none of them, or not yet.

        Raises:
            EntriesGone: the replica has later ones, but not this one.
            StreamAway: no answer.
        """
        ...

    async def info(self) -> Info:
        """Return what a server believes of the stream.

        Raises:
            StreamAway: no answer.
        """
        ...

    async def purge(self, below: int) -> None:
        """Have the entries below this sequence removed; the numbering goes on as if nothing happened.

        Never beyond the end: then it would jump. So `below` is at most one more than a sequence that was acked.

        Raises:
            StreamAway: no answer; it may happen all the same.
        """
        ...

    async def step_down(self, preferred: str = "") -> None:
        """Have another server lead the stream, `preferred` if it can; it takes some 20 ms.

        Raises:
            StreamAway: no answer.
        """
        ...

    async def say(self, word: bytes) -> None:
        """Tell whoever stands by that this broker leads; nobody may hear it, and nothing rests on it."""
        ...

    async def hear(self, heard: Callable[[bytes], None]) -> None:
        """Have `heard` called, in this loop, with each word that is said from now on.

        Raises:
            StreamAway: no answer.
        """
        ...

    @property
    def is_connected(self) -> bool:
        """Whether a server could tell something now."""
        ...

    async def close(self) -> None:
        """Let go of the connection; what is in flight stays unknown."""
        ...
