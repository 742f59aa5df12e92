"""The lanes of every queue that has nothing: one object for all of them."""

from __future__ import annotations

from typing import Final, NoReturn

from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.lanes import Lanes
from minibrokerd.core.model.standing import Standing


class _NoLanes(Lanes):
    """They take nothing: `Queue.wake` comes before the first message."""

    __slots__ = ()

    def _lane(self, key: str) -> NoReturn:
        raise AssertionError("a queue at rest was given a message")

    def enter_cold(self, run: ColdRun) -> NoReturn:
        """Refuse: it would be in all queues."""
        self._lane("")


NO_LANES: Final[Lanes] = _NoLanes(0, Standing(), None)
