"""Keeps memory bounded: messages leave it while their queue is long, and are read back before they are needed.

The core says what it wants read (`Effects.reads`); the reading is done in a thread, so that a slow disk does not
stop the loop. Above a watermark messages leave; at the hard limit publishes are refused until there is room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from minibrokerd.bodies.shelves import stands
from minibrokerd.core.core import Core
from minibrokerd.core.model.effects import ReadBack
from minibrokerd.core.model.inputs import Freeze, Loaded
from minibrokerd.core.model.walks import ReadForWalk
from minibrokerd.log.seam import Elsewhere, Log, Record
from minibrokerd.process.logs import events
from minibrokerd.process.memory import Gauge, give_back

LOOK_BYTES: Final = 1024 * 1024  # of records written between two looks at how much is in memory
EASY_BYTES: Final = 2 * LOOK_BYTES  # that leave in one step where nothing is short
MUCH_BYTES: Final = EASY_BYTES // 8  # a step that lets go less is the last one
STEP_S: Final = 0.01  # between such steps
QUIET_S: Final = 0.1  # without a look because of what was written: memory is looked after
GIVE_BACK_BYTES: Final = 8 * LOOK_BYTES  # that came and went, of which the heap may keep holes
SECOND_BYTES: Final = 2 * LOOK_BYTES  # the same where that was not tried for a second
# More brings nothing: it is read back faster than it is handed out.
MOST_HOT_BYTES: Final = 96 * 1024 * 1024
FILL_BYTES: Final = 64 * 1024 * 1024  # read back by a start, over all queues
# What a read costs beside its bytes, in these: about 0.15 ms, with what the core makes of it. So a start on
# very many queues reads for a thousand of them, and the others wait for theirs until they are asked.
READ_BYTES: Final = 64 * 1024
RETRY_S: Final = 1.0


class Pager:
    """Looks at memory after every sync, and answers what the core wants to have read."""

    def __init__(
        self,
        core: Core,
        log: Log,
        loop: asyncio.AbstractEventLoop,
        apply: Callable[[Freeze | Loaded], None],
        rest_bytes: Callable[[], int | None],
        memory_limit_bytes: int,
    ) -> None:
        """`rest_bytes` is what copies may take now, as `Forwarder.rest_bytes`."""
        self._core = core
        self._log = log
        self._loop = loop
        self._apply = apply
        self._rest_bytes = rest_bytes
        self.to_copy: list[Loaded] = []  # what was read to be written again, after the next sync
        self.limit(memory_limit_bytes)
        self._written_bytes = 0
        self._easing: asyncio.TimerHandle | None = None  # the next step
        self._is_quiet = True  # nothing came since the last step
        self._passed_bytes = 0  # that came since the heap was trimmed
        self._fetches: set[asyncio.Future[list[Record | None]]] = set()
        self._gauge = Gauge()
        self._full = False
        # What is still to be read while `fill` goes on.
        self._filling: deque[ReadBack] | None = None

    def limit(self, memory_limit_bytes: int) -> None:
        """Go by another limit from now on. Half of it is for messages, the rest for what they cost."""
        self._limit_bytes = memory_limit_bytes
        self._core.limit_memory(memory_limit_bytes)
        self._most_bytes = memory_limit_bytes // 2
        self._hot_bytes = min(MOST_HOT_BYTES, memory_limit_bytes // 4)

    def replayed(self) -> None:
        """Something was replayed: let messages leave memory, if there are many."""
        self._core.cool(self._hot_bytes // 2)  # half of it comes before the next look

    def wrote(self, size_bytes: int) -> None:
        """Note what was written to the log; now and then, let messages leave memory."""
        self._written_bytes += size_bytes
        if self._written_bytes < LOOK_BYTES:
            return
        written_bytes, self._written_bytes = self._written_bytes, 0
        hot_bytes = self._core.hot_bytes()
        if hot_bytes > self._hot_bytes:
            # Twice what came in: so it gets less, and each step stays short.
            self._apply(Freeze(2 * written_bytes))
        else:
            self._ease(2 * written_bytes)
        self.look()
        self._passed(written_bytes)

    def _passed(self, size_bytes: int) -> None:
        """Note what came into memory, and look after it when that has stopped."""
        self._passed_bytes += size_bytes
        self._is_quiet = False
        if self._easing is None:
            self._easing = self._loop.call_later(QUIET_S, self._ease_on)

    def ease(self) -> None:
        """Let what is not needed soon leave memory, in steps; called once a second."""
        if self._easing is None:
            self._ease_on(SECOND_BYTES)

    def _ease_on(self, hole_bytes: int = GIVE_BACK_BYTES) -> None:
        self._easing = None
        is_quiet, self._is_quiet = self._is_quiet, True
        left_bytes = self._ease(EASY_BYTES)
        self._passed_bytes += left_bytes  # it may have come before the heap was trimmed last
        if left_bytes >= MUCH_BYTES:
            self._easing = self._loop.call_later(STEP_S, self._ease_on)
        elif not is_quiet:
            self._easing = self._loop.call_later(QUIET_S, self._ease_on)
        elif self._passed_bytes >= hole_bytes:
            self._passed_bytes = 0
            give_back()

    def _ease(self, most_bytes: int) -> int:
        """Return how many bytes of messages left."""
        if not self._core.store.sums.large:
            return 0
        hot_bytes = self._core.hot_bytes()
        self._apply(Freeze(most_bytes, is_easy=True))
        return hot_bytes - self._core.hot_bytes()

    def look(self) -> None:
        """Compare what the process takes of memory with its limit."""
        self._gauge.look(self._core.memory_bytes(), self._limit_bytes)
        self._full = self._is_above()

    @property
    def is_full(self) -> bool:
        """Whether memory has room for no more messages."""
        if self._full:
            self._full = self._is_above()
        return self._full

    def _is_above(self) -> bool:
        if max(self._core.hot_bytes(), self._core.held_bytes()) > self._most_bytes:
            return True
        return self._gauge.is_above(self._core.memory_bytes(), self._limit_bytes)

    def read(self, reads: Iterable[ReadBack]) -> None:
        """Have these read; the core gets what they have as `Loaded`."""
        if self._filling is not None:
            self._filling += reads
            return
        for asked in reads:
            future = self._loop.run_in_executor(None, self._log.read, *stands(asked))
            future.add_done_callback(partial(self._done, asked))

    def fill(self) -> None:
        """Read back the first messages of the queues; blocks, before the port opens.

        What is left is read when it is needed.
        """
        left_bytes, wanted = FILL_BYTES, self._core.wanted()
        reads: deque[ReadBack] = deque()
        later: list[ReadBack] = []
        self._filling = reads
        while left_bytes > 0:
            asked = next(wanted, None)
            if asked is None and not reads:
                break
            asked = asked or reads.popleft()
            segment, offsets = stands(asked)
            left_bytes -= offsets[-1] - offsets[0] + READ_BYTES
            try:
                found = self._log.read(segment, offsets)
            except Elsewhere:  # the port does not wait for it
                later.append(asked)
                continue
            # What is to be read next, the core says in the effects of this (it comes to `read`), or when it is
            # asked: while hand-outs wait for resumes it looks at no queue by itself.
            self._apply(Loaded(asked, found))
        self._filling = None
        self.read([*later, *reads])

    def _done(self, asked: ReadBack, future: asyncio.Future[list[Record | None]]) -> None:
        if future.cancelled() or asked.is_void:
            return
        error = future.exception()
        if isinstance(error, Elsewhere):
            self._fetch(asked, error)
            return
        if error is not None and isinstance(asked, ReadForWalk):
            self._apply(
                Loaded(asked, ())
            )  # its segment was freed: it looks again where the messages are
            return
        if error is not None:
            events.error("read_failed", segment=stands(asked)[0], exc_info=error)
            self._loop.call_later(RETRY_S, self.read, [asked])
            return
        self._loaded(Loaded(asked, future.result()))
        offsets = stands(asked)[1]
        self._passed(offsets[-1] - offsets[0])

    def _fetch(self, asked: ReadBack, elsewhere: Elsewhere) -> None:
        """Have it brought here: whoever waits for it goes on waiting, and no thread does."""
        task = asyncio.ensure_future(elsewhere.fetch(), loop=self._loop)
        self._fetches.add(task)  # the loop alone would forget it
        task.add_done_callback(self._fetches.discard)
        task.add_done_callback(partial(self._done, asked))

    def go_on(self) -> None:
        """Have copied what waited for a sync."""
        waiting, self.to_copy = self.to_copy, []
        for loaded in waiting:
            self._loaded(loaded)

    def _loaded(self, loaded: Loaded) -> None:
        if loaded.asked.forward_bytes:
            rest_bytes = self._rest_bytes()
            if rest_bytes is None:
                self.to_copy.append(loaded)
                return
            loaded.rest_bytes = rest_bytes
        self._apply(loaded)
