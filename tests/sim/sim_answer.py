"""A caller of a simulated client: it waits for one answer of the machine, as a future does, until its deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minibroker.session.deadlines import SLOT_MS

if TYPE_CHECKING:
    from sim_shell import MachineShell

LATE_MS = SLOT_MS + 3  # a deadline is at most one slot late, and timers are early by up to 2 ms
Told = Callable[[Any, Exception | None], object]


class Over(Exception):
    """Nobody waits any more."""


class Answer:
    """Waits until `by_ms`; `told` is called once, with a value or an error, unless it was cancelled before."""

    __slots__ = ("_by_ms", "_shell", "_told", "_value", "error", "state", "what")

    def __init__(self, shell: MachineShell, what: str, by_ms: int, told: Told) -> None:
        self._shell = shell
        self._by_ms = by_ms
        self._told = told
        self._value: Any = None
        self.error: Exception | None = None
        self.state = "waiting"
        self.what = what
        shell.waiting[self] = None

    def done(self) -> bool:
        """Return whether there is an answer, or nobody to take it."""
        return self.state != "waiting"

    def cancelled(self) -> bool:
        """Return whether its caller has gone."""
        return self.state == "cancelled"

    def cancel(self) -> bool:
        """Note that its caller goes; False: it has its answer."""
        if self.state != "waiting":
            return False
        self.state = "cancelled"
        del self._shell.waiting[self]
        return True

    def exception(self) -> Exception | None:
        """Return the error that is its answer, if it is one."""
        return self.error

    def result(self) -> Any:
        """Return the answer."""
        return self._value

    def set_result(self, value: Any) -> None:
        """Answer."""
        self._end(value, None)

    def set_exception(self, error: Exception) -> None:
        """Answer with an error."""
        self._end(None, error)

    def _end(self, value: Any, error: Exception | None) -> None:
        if self.state != "waiting":
            raise Over
        self.state, self._value, self.error = "done", value, error
        del self._shell.waiting[self]
        self.check()
        self._told(value, error)

    def check(self) -> None:
        """I9: nobody waits beyond his deadline."""
        late_ms = self._shell.now_ms() - self._by_ms
        if late_ms > LATE_MS:
            text = f"{self.what} of {self._shell.name} waited {late_ms} ms beyond its deadline"
            self._shell.world.checker.violation("I9", text)
