"""Circuits of keys in the model: what was counted, which are open, and what is tried (protocol.md, 5.12).

The window of its settings is longer than a world lasts: its end is for other tests (test_core_key_circuits.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelled import Id, Modelled

    from model import Model

TICK_MS = 8
WINDOW_MS = 86_400_000


@dataclass(slots=True)
class Circuit:
    """One that is not closed; `tried` is the id and the token of the message that was given for that."""

    until_ms: int
    until_unix_ms: int
    tried: tuple[Id, int] | None = None


class Circuits:
    """Those of the keys of `q`."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.open: dict[str, Circuit] = {}
        self.counts: dict[str, tuple[int, int]] = {}  # failed, ended

    def keeps(self, message: Modelled) -> bool:
        """Whether a message waits for the circuit of its key."""
        circuit = self._of(message)
        if circuit is None:
            return False
        return self._model.now_ms < circuit.until_ms or self._is_out(circuit)

    def gave(self, message: Modelled) -> None:
        """A message was handed out."""
        circuit = self._of(message)
        if circuit is not None:
            circuit.tried = message.id, message.token

    def waits(self, message: Modelled) -> None:
        """A message waits again: it is not tried any more."""
        circuit = self._of(message)
        if circuit is not None and circuit.tried == (message.id, message.token):
            circuit.tried = None

    def charge(self, message: Modelled, *, failed: bool) -> None:
        """An attempt ended that is charged, unless its key is open."""
        message.ended = message.token
        if self._of(message) is not None:
            message.releases += 1
        else:
            message.charged += 1
            message.failed += failed

    def failed(self, message: Modelled) -> None:
        """An attempt failed, by more than a reject."""
        circuit, model = self._of(message), self._model
        if circuit is not None:
            if self._is_out(circuit) and circuit.tried == (message.id, message.token):
                self._opens(message.key)
        elif self._counts(message):
            bad, all = self._count(message.key, 1)
            share = model.setting("q", "circuit_failures_percent")
            if all >= model.setting("q", "circuit_attempts") and 100 * bad >= share * all:
                self._opens(message.key)

    def acked(self, message: Modelled) -> None:
        """An attempt was good."""
        circuit = self._of(message)
        if circuit is not None:
            if self._is_out(circuit) and circuit.tried == (message.id, message.token):
                del self.open[message.key]
        elif self._counts(message) and message.key in self.counts:
            self._count(message.key, 0)

    def settings_are_others(self) -> None:
        """Those that are not wanted are closed."""
        if not self._model.setting("q", "circuit_failures_percent"):
            self.open, self.counts = {}, {}

    def logged(self) -> dict[str, int]:
        """Return what the log says: until when each is open."""
        return {key: circuit.until_unix_ms for key, circuit in self.open.items()}

    def restart(self, logged: dict[str, int]) -> None:
        """Start from what a log says."""
        model, self.open, self.counts = self._model, {}, {}
        for key, until_unix_ms in logged.items():
            left_ms = max(until_unix_ms - model.unix_ms, 0)
            left_ms = min(left_ms, model.setting("q", "circuit_open_ms"))
            self.open[key] = Circuit(_to_tick(model.now_ms + left_ms), until_unix_ms)
        self.settings_are_others()

    def _of(self, message: Modelled) -> Circuit | None:
        return self.open.get(message.key) if message.queue == "q" else None

    def _is_out(self, circuit: Circuit) -> bool:
        if circuit.tried is None:
            return False
        id, token = circuit.tried
        tried = self._model.messages.get(id)
        return (
            tried is not None
            and (tried.queue, tried.token) == ("q", token)
            and tried.state in ("HELD", "BEGUN")
        )

    def _counts(self, message: Modelled) -> bool:
        wanted = self._model.setting("q", "circuit_failures_percent")
        return bool(wanted and message.key) and message.queue == "q"

    def _count(self, key: str, failed: int) -> tuple[int, int]:
        bad, all = self.counts.get(key, (0, 0))
        self.counts[key] = bad + failed, all + 1
        return self.counts[key]

    def _opens(self, key: str) -> None:
        model = self._model
        until_ms = _to_tick(model.now_ms + model.setting("q", "circuit_open_ms"))
        self.counts.pop(key, None)
        self.open[key] = Circuit(until_ms, model.unix_ms + until_ms - model.now_ms)


def _to_tick(ms: int) -> int:
    return -(-ms // TICK_MS) * TICK_MS
