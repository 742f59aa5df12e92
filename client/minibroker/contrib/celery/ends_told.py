"""Ends of messages for one thread that waits for whichever comes first, without a poll.

A blocking client asks for one result at a time, and a process of Celery waits for thousands. Here each is a
request that lies at the server, and what is answered is noted for the next thread that looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from minibroker.contract import limits
from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import LimitReached
from minibroker.contract.wire import pack_runs
from minibroker.session.calls import Call
from minibroker.session.wishes import runs_of
from minibroker.sync.driver import Driver
from minibroker.sync.waiter import Waiter

WAIT_MS: Final = limits.MAX_WAIT_MS
Thing = TypeVar("Thing")


class EndsTold:
    """Messages, by the names of who asks, of which the server tells when they end."""

    def __init__(self, driver: Driver, queue: str) -> None:
        self._driver = driver
        self._queue = queue
        self._asked: dict[str, Call] = {}
        self._told: deque[tuple[str, MessageId | None]] = deque()
        self._refused: deque[str] = deque()
        self._machine = driver.machine
        self._waiter: Waiter | None = None
        self._woken = False

    def watch(self, ids: Mapping[str, MessageId]) -> None:
        """Ask to be told of the end of messages."""
        driver = self._driver
        with driver:
            driver.machine.check_open()
            self._check()
            for name, id in ids.items():
                fields = {"queue": self._queue, "runs": 1, "wait_ms": WAIT_MS}
                runs = pack_runs(runs_of([id]))
                answer = _Answer(driver.machine, partial(self._is_told, name))
                self._asked[name] = driver.machine.calls.ask(answer, "result", fields, None, runs)

    def leave(self, names: Iterable[str]) -> None:
        """Be told of these no more."""
        driver = self._driver
        with driver:
            self._check()
            for name in names:
                call = self._asked.pop(name, None)
                if call is not None and not call.waiter.done():
                    call.waiter.cancel()
                    driver.machine.calls.gave_up(call)

    def wait(self, seconds: float) -> None:
        """Return when one of them has ended, when `wake` was called, or after so long."""
        driver, waiter = self._driver, Waiter()
        passed, slot = partial(_answered, waiter), None
        try:
            with driver as now:
                machine = driver.machine
                machine.check_open()
                self._check()
                if self._woken or self._told:
                    return
                waiter.owner = machine
                self._waiter = waiter
                slot = machine.timers.at(now + max(1, int(seconds * 1_000)), passed)
            driver.answered(waiter)
        finally:
            with driver:
                self._waiter, self._woken = None, False
                if slot is not None and driver.machine is waiter.owner:
                    driver.machine.timers.discard(passed, slot)
                if not waiter.done():
                    waiter.cancel()

    def wake(self) -> None:
        """Let the thread that waits look again; any thread may call it."""
        driver = self._driver
        with driver:
            self._woken = True
            if self._waiter is not None:
                _answered(self._waiter)
                driver.ring()

    def take(self) -> dict[str, MessageId | None]:
        """Return the names of what may have ended since, each with the message that replaced it, if one did."""
        return dict(_taken(self._told))

    def take_refused(self, most: int) -> list[str]:
        """Return names that the server did not take, as too many are asked for."""
        return _taken(self._refused, most)

    def _check(self) -> None:
        """Look at all of it again if an interrupt made the client begin anew: its requests are gone."""
        if self._machine is not self._driver.machine:
            self._machine = self._driver.machine
            self._told.extend((name, None) for name in self._asked)
            self._asked.clear()

    def _is_told(self, name: str, answer: Any, error: BaseException | None) -> None:
        self._asked.pop(name, None)
        if isinstance(error, LimitReached):
            self._refused.append(name)
            return
        self._told.append((name, _replacing(answer)))  # None: a look says what is there now
        if self._waiter is not None:
            _answered(self._waiter)


class _Answer(Waiter):
    """What is answered in place of a thread that waits."""

    __slots__ = ("_tell",)

    def __init__(self, owner: object, tell: Any) -> None:
        super().__init__(owner)
        self._tell = tell

    def set_result(self, value: Any) -> None:
        super().set_result(value)
        self._tell(value, None)

    def set_exception(self, error: BaseException) -> None:
        super().set_exception(error)
        self._tell(None, error)


def _answered(waiter: Waiter, now_ms: int = 0) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _replacing(answer: Any) -> MessageId | None:
    """Return the message that an answer names as that which replaced another one: `1-5 (who published it)`."""
    if not isinstance(answer, dict) or answer.get("state") != "REPLACED":
        return None
    try:
        return MessageId.parse(str(answer.get("by")).partition(" ")[0])
    except ValueError:
        return None


def _taken(line: deque[Thing], most: int | None = None) -> list[Thing]:
    taken: list[Thing] = []
    while line and (most is None or len(taken) < most):
        taken.append(line.popleft())
    return taken
