"""That an append waits for the stream is told once, when it has waited for a while; and that it goes on."""

from __future__ import annotations

from time import monotonic
from typing import Final

from minibrokerd.process.logs import OwnText, events

TOLD_S: Final = 1.0  # an append that waits for longer is told


class Stalls:
    """Since when an append waits; tells it as events."""

    def __init__(self, name: str) -> None:
        """`name` is that of the stream."""
        self._name = name
        self._since_s = 0.0  # 0: none waits
        self._is_told = False

    @property
    def lasted_s(self) -> float:
        """For how long one waits; 0: none does."""
        return monotonic() - self._since_s if self._since_s else 0.0

    def waits(self, reason: str) -> None:
        """It waits still, for this reason."""
        now_s = monotonic()
        if not self._since_s:
            self._since_s, self._is_told = now_s, False
        elif not self._is_told and now_s - self._since_s > TOLD_S:
            self._is_told = True
            events.warning("log_stalled", stream=OwnText(self._name), text=OwnText(reason))

    def goes_on(self) -> None:
        """One was taken."""
        if self._since_s and self._is_told:
            events.info("log_goes_on", ms=round((monotonic() - self._since_s) * 1_000))
        self._since_s = 0.0
