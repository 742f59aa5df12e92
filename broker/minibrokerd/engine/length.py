"""How long the log is: the forwarder is asked for its next step, and whoever waited for what it frees goes on."""

from __future__ import annotations

from collections.abc import Callable

from minibrokerd.core.model.inputs import Command
from minibrokerd.engine.admission import Admission
from minibrokerd.engine.clock import Clock
from minibrokerd.engine.forwarder import Forwarder


class Length:
    """Asked after every sync; one step of the forwarder is done in a turn of the loop."""

    def __init__(
        self,
        forwarder: Forwarder,
        admission: Admission,
        clock: Clock,
        apply: Callable[[Command], None],
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        """`apply` applies what has become of the reserve; `call_soon` is the loop's."""
        self._forwarder = forwarder
        self._admission = admission
        self.clock = clock
        self._apply = apply
        self._call_soon = call_soon
        self.stays = False  # a broker that leaves frees nothing any more
        self._is_due = False  # a step is

    def bound(self) -> None:
        """Have the oldest segment emptied and freed while the log is longer than it should be."""
        if self.stays:
            return
        if self._forwarder.step(self.clock):
            self.bound_soon()
        else:
            self._admission.look_at_waiting()

    def bound_soon(self) -> None:
        """As `bound`, in a turn of its own."""
        if not self._is_due:
            self._is_due = True
            self._call_soon(self._bound_now)

    def _bound_now(self) -> None:
        self._is_due = False
        self.bound()

    def look_at_reserve(self) -> None:
        """Have the core know whether space is short."""
        news = self._admission.look_at_reserve()
        if news is not None:
            self._apply(news)

    def freed_soon(self) -> None:
        """As `freed`, in a turn of its own."""
        self._call_soon(self.freed)

    def freed(self) -> None:
        """A segment was given up: whoever waited for that goes on."""
        self._forwarder.freed()
        self._admission.freed()
        self.bound()
        self.look_at_reserve()
        self._admission.go_on()
