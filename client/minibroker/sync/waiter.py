"""What a thread waits with: as a future is for a task, without a callback."""

from __future__ import annotations

import threading
from typing import Any, Final

_WAITING: Final = 0
_DONE: Final = 1
_CANCELLED: Final = 2


class Over(Exception):
    """Nobody waits any more."""


class Waiter:
    """One answer for one thread. All of its methods are called under the driver's mutex, `sleep` apart."""

    __slots__ = ("_error", "_lock", "_state", "_value", "owner")

    def __init__(self, owner: object = None) -> None:
        self.owner = owner  # the machine that is to answer
        self._state = _WAITING
        self._value: Any = None
        self._error: BaseException | None = None
        self._lock: Any = None  # while its thread sleeps

    def done(self) -> bool:
        """Return whether there is an answer, or nobody to take it."""
        return self._state != _WAITING

    def cancelled(self) -> bool:
        """Return whether its thread has gone without an answer."""
        return self._state == _CANCELLED

    def cancel(self) -> None:
        """Note that its thread goes."""
        if self._state == _WAITING:
            self._state = _CANCELLED

    def exception(self) -> BaseException | None:
        """Return the error that is its answer, if it is one."""
        return self._error

    def result(self) -> Any:
        """Return the answer, or raise it."""
        if self._error is not None:
            raise self._error
        return self._value

    def set_result(self, value: Any) -> None:
        """Answer; Over if nobody waits."""
        if self._state != _WAITING:
            raise Over
        self._state, self._value = _DONE, value
        if self._lock is not None:
            self.wake()

    def set_exception(self, error: BaseException) -> None:
        """Answer with an error; Over if nobody waits."""
        if self._state != _WAITING:
            raise Over
        self._state, self._error = _DONE, error
        if self._lock is not None:
            self.wake()

    def lie_down(self) -> Any:
        """Return the lock that its thread is to acquire, without the mutex: it is released to wake it."""
        self._lock = lock = threading.Lock()
        lock.acquire()
        return lock

    def wake(self) -> None:
        """Let its thread look again."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
