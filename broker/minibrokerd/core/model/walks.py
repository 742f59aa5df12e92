"""Work on behalf of a client that may have to look at very much: in steps, so that nobody else waits for it.

A walk is an iterator that yields whenever its step is used up. Steps are counted in looks, about 1 us each. What
little requests need is done at once; but all that come in one turn of the loop share one step's looks, and what
is left goes on in steps of its own, one for each tick, in turn with all other long work.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final

from minibrokerd.core.model.effects import ReadBack
from minibrokerd.core.model.extents import Shelf
from minibrokerd.core.model.inputs import Frame, Resume
from minibrokerd.core.model.refusals import Refused
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import Timer
from minibrokerd.log.seam import Record

LOOKS: Final = 5_000  # of one step, about 5 ms
STEP_BYTES: Final = 8 * 1024  # of records that one step writes: the smallest segments take several
MOST_WALKS: Final = 1_000  # of one connection, unfinished
PAUSE_MS: Final = 10
UNSYNCED_BATCHES: Final = 4  # so many, and what writes more waits for the disk
GO_ON: Final = False  # what a walk yields: more is to be done, in the next step
WAIT: Final = True  # or: it is called when what it waits for is there

Steps = Iterator[bool]


class Walk:
    """One request that is answered after some steps; a job of the store."""

    def __init__(self, store: Store, asked: Frame | Resume, *, changes: bool) -> None:
        """`changes`: it goes on when its client has gone, so that what it does is done."""
        self.store = store
        self.connection = asked.connection
        self.request = asked.request if isinstance(asked, Frame) else None
        self._changes = changes
        self._steps: Steps = iter(())
        self._records: Sequence[Record | None] | None = None
        self._left = 0

    def begin(self, steps: Steps) -> None:
        """Take the first step, now or soon.

        Raises:
            Refused: `busy`, its connection has very many unfinished ones.
        """
        store = self.store
        connection = store.connections[self.connection]
        if connection.walks >= MOST_WALKS:
            text = f"{connection.walks} requests of this connection are being worked on; await some of them"
            raise Refused("busy", text, 1_000)
        connection.walks += 1
        self._steps = steps
        self._left = store.looks_left
        if self._left > 0:
            finished = self._step()
            store.looks_left = min(self._left, store.looks_left)
            if store.looks_left <= 0:
                store.jobs.append(lambda: _refill(store))
            if finished:
                return
        store.jobs.append(self)

    def __call__(self) -> bool:
        """Take one more step; True: no other one is due by itself."""
        self._left = LOOKS
        return self._step()

    def _step(self) -> bool:
        if not (self._changes or self.connection in self.store.connections):
            return True
        waits = next(self._steps, None)
        if waits is None:
            connection = self.store.connections.get(self.connection)
            if connection is not None:
                connection.walks -= 1
            return True
        return waits

    def is_used_up(self, looks: int) -> bool:
        """Count looks; True: the caller should yield."""
        self._left -= looks
        return self._left <= 0

    def has_written(self, records: int) -> bool:
        """Whether the records of this apply, of which `records` are older than the walk, are enough for a step."""
        return (
            sum(record.size_bytes for record in self.store.effects.records[records:]) >= STEP_BYTES
        )

    def may_write(self) -> Generator[bool, None, bool]:
        """Wait while the disk is behind, or room on it is made; return whether there is any.

        What a walk writes is bounded by nothing else, and the last room is for those who settle.
        """
        while self.store.paused or self.is_ahead:
            yield from self.pause()
        return not self.store.short

    @property
    def is_ahead(self) -> bool:
        """Whether so much is written and not safe yet that more should wait."""
        return self.store.open_batch - self.store.synced > UNSYNCED_BATCHES

    def read(self, shelf: Shelf, low: int, high: int) -> Iterator[bool]:
        """Read extents of a shelf, from index `low` up to `high`; then `records` has them."""
        self._records = None
        self.store.effects.read(ReadForWalk(self, shelf, low, high))
        yield WAIT

    @property
    def records(self) -> Sequence[Record | None] | None:
        """What was read, None for a record that does not verify; None for all: they are not there any more."""
        return self._records

    def got(self, records: Sequence[Record | None]) -> None:
        """Go on with what was read; nothing: it could not be."""
        self._records = records or None
        self.store.jobs.append(self)

    def pause(self) -> Iterator[bool]:
        """Go on in a moment: something is on its way."""
        yield from self.wait_until(self.store.now_ms + PAUSE_MS)

    def wait_until(self, log_ms: int) -> Iterator[bool]:
        """Go on at a time."""
        self.store.set_timer(_go_on, self, log_ms)
        yield WAIT

    def reply(self, rests_on: int, value: dict[str, Any]) -> None:
        """Answer the request, if its client is still there."""
        if self.connection in self.store.connections:
            self.store.reply(self.connection, self.request, rests_on, value)


class Errand(Walk):
    """Work of the server's own in steps: no client waits for it, and it has whole steps."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.connection = 0  # none has this number
        self.request = None
        self._changes = True
        self._steps = iter(())
        self._records = None
        self._left = 0

    def begin(self, steps: Steps) -> None:
        """Take the first step soon."""
        self._steps = steps
        self.store.jobs.append(self)


class ReadForWalk(ReadBack):
    """Extents to be read for a walk; answered by the command `Loaded`, too."""

    __slots__ = ("walk",)

    def __init__(self, walk: Walk, shelf: Shelf, low: int, high: int) -> None:
        self.walk = walk
        self.shelf, self.low, self.high = shelf, low, high
        self.forward_bytes = 0

    @property
    def is_void(self) -> bool:
        """Whether nobody waits for this any more: never, for the walk ends by itself."""
        return False


def _refill(store: Store) -> bool:
    store.looks_left = LOOKS
    return True


def _go_on(store: Store, timer: Timer, walk: Walk) -> None:
    store.jobs.append(walk)
