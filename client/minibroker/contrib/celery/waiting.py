"""Results of Celery that are waited for: `get()`, `join()`, `then()`, of one thread or of many."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, Final

from celery import states
from celery.backends.asynchronous import BaseResultConsumer

from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import MinibrokerError
from minibroker.contrib.celery.ends_told import EndsTold
from minibroker.contrib.celery.named_values import MOST, Found, NamedValues

LOOK_S: Final = 2.0  # so long a look may take: who waits has a time of his own
AGAIN_S: Final = 1.0  # what the server does not tell of, as it is too much, is looked at in turns


class ResultConsumer(BaseResultConsumer):
    """What Celery waits for results with: one thread looks for all, and the others wait for it.

    A result that is waited for and not there is a placeholder, of whose end the server tells: that is a new
    state, or its time is over. Nothing is asked of results for which nobody waits, and `cancel_for`, which the
    garbage collector may call in any thread at any moment, takes no lock.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._begin()

    def _begin(self) -> None:
        self._turn = threading.Condition()
        self._looks = False  # a thread does
        self._wanted: dict[str, None] = {}
        self._fresh: deque[str] = deque()
        self._gone: deque[str] = deque()
        self._again_at = 0.0
        self._keeping: NamedValues | None = None
        self._watching: EndsTold | None = None

    def _open(self) -> tuple[NamedValues, EndsTold]:
        keeping: NamedValues = self.backend.keeping
        if self._keeping is not keeping or self._watching is None:
            self._keeping = keeping
            self._watching = EndsTold(keeping.queue._driver, keeping.queue.name)
            self._fresh.extend(self._wanted)  # what was asked of a client that was closed is gone
        return keeping, self._watching

    def on_after_fork(self) -> None:
        """In a child of a fork nobody waits yet: what was waited for is the parent's."""
        self._begin()

    def start(self, initial_task_id: str, **kwargs: Any) -> None:
        """Wait for a first result."""
        self.consume_from(initial_task_id)

    def stop(self) -> None:
        """Wait for none any more."""
        self._gone.extend(self._wanted)
        self._wanted.clear()

    def consume_from(self, task_id: str) -> None:
        """Wait for the result of a task."""
        if task_id in self._wanted:
            return
        self._wanted[task_id] = None
        self._fresh.append(task_id)
        if self._looks and self._watching is not None:
            self._watching.wake()

    def cancel_for(self, task_id: str) -> None:
        """Wait no more for the result of a task; what the server knows of it goes with the next look."""
        if task_id in self._wanted:
            self._wanted.pop(task_id, None)
            self._gone.append(task_id)

    def drain_events(self, timeout: float | None = None) -> None:
        """Take what has come, or wait for it so long; what it is is told to whoever waits."""
        seconds = AGAIN_S if timeout is None else timeout
        with self._turn:
            if self._looks:
                self._turn.wait(seconds)
                return
            self._looks = True
        try:
            self._drain(seconds)
        finally:
            with self._turn:
                self._looks = False
                self._turn.notify_all()

    def _drain(self, seconds: float) -> None:
        _, watching = self._open()
        gone = [self._gone.popleft() for _ in range(len(self._gone))]
        if gone:
            watching.leave(name for name in gone if name not in self._wanted)
        if self._look(watching):
            return
        watching.wait(seconds)
        self._look(watching)

    def _look(self, watching: EndsTold) -> bool:
        """Look at what is new or has changed, and tell of it; return whether there was something to tell."""
        names: dict[str, MessageId | None] = dict.fromkeys(
            self._fresh.popleft() for _ in range(len(self._fresh))
        )
        names |= watching.take()
        now = time.monotonic()
        if now >= self._again_at:
            self._again_at = now + AGAIN_S
            names |= dict.fromkeys(watching.take_refused(MOST))
        wanted = [(name, id) for name, id in names.items() if name in self._wanted]
        told = False
        for first in range(0, len(wanted), MOST):
            try:
                told |= self._look_at(dict(wanted[first : first + MOST]), watching)
            except BaseException:
                self._fresh.extend(name for name, _ in wanted[first:])
                raise
        return told

    def _look_at(self, names: dict[str, MessageId | None], watching: EndsTold) -> bool:
        found = self._found(names)
        self._fresh.extend(name for name in names if name not in found)
        metas = {
            name: self.backend.decode_result(each.value)
            for name, each in found.items()
            if each.value is not None
        }
        ready = {name for name, meta in metas.items() if meta["status"] in states.READY_STATES}
        ids = {name: each.id for name, each in found.items() if name not in ready}
        if ids:
            watching.watch(ids)
        for name in ready:
            self._wanted.pop(name, None)
        for meta in metas.values():
            self.on_state_change(meta, None)
        return bool(metas)

    def _found(self, names: dict[str, MessageId | None]) -> dict[str, Found]:
        """Return what stands for each task; one that is missing was given another message meanwhile."""
        keeping, _ = self._open()
        there = keeping.at([id for id in names.values() if id is not None], LOOK_S)
        found = {name: there[id] for name, id in names.items() if id in there}
        keys = {self.backend.get_key_for_task(name): name for name in names if name not in found}
        if keys:
            found |= {keys[key]: each for key, each in keeping.look(list(keys), LOOK_S).items()}
        return found


def is_passing(error: BaseException) -> bool:
    """Return whether what failed may succeed later, and does no harm if it had been done."""
    return isinstance(error, MinibrokerError) and (
        error.retryable or error.code == "outcome_unknown"
    )
