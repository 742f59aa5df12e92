"""What the engine knows of a connection: where its frames go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from minibrokerd.core.model.effects import Effects, Outgoing


class Sink(Protocol):
    """Where the frames of one connection go."""

    def send(self, outgoing: Outgoing) -> None:
        """Take one frame; it is written at the latest when `flush` is called."""

    def flush(self) -> None:
        """Write what was taken."""

    def ahead(self, outgoing: Outgoing) -> Callable[[], None] | None:
        """Encode a frame that `send` will get; return what sends it from the writer thread, or None."""

    def refused(self, code: str, text: str) -> None:
        """Note why the connection ends; `close` follows."""

    def close(self) -> None:
        """Write what was taken, then end the connection."""

    def drop(self) -> None:
        """End the connection at once, and write nothing more."""


def tell_why(sink: Sink, connection: int, effects: Effects) -> None:
    """Tell the sink of a connection that ends why it does, if a refusal says so."""
    for outgoing in effects.outgoing:
        if outgoing.connection == connection and outgoing.header["op"] == "error":
            sink.refused(outgoing.header["code"], outgoing.header["text"])
