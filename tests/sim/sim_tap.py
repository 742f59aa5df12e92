"""What a simulated client hears, looked at beside its machine: refusals of a connection, and frames to repeat."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from minibroker.contract import wire
from minibroker.session.session import Session


class Tap:
    """Looks at what comes; `refused` is called with an error that is meant for the connection as a whole."""

    def __init__(self, session: Session, refused: Callable[[str, str], None]) -> None:
        self._session = session
        self._refused = refused
        self._reader = wire.FrameReader()
        # Frames that were confirmed. One that was refused left no trace: sent again, it would be a new one.
        self.confirmed: deque[bytes] = deque(maxlen=5)
        self._answered_below = 1  # as the server may have heard it

    def opened(self) -> None:
        """A connection begins; to forget what was said to be answered the server had the time between two."""
        self._reader = wire.FrameReader()
        for sent in self._session.window:
            self._said(sent.frame)
        kept = [frame for frame in self.confirmed if self._said(frame) >= self._answered_below]
        self.confirmed = deque(kept, self.confirmed.maxlen)

    def came(self, data: bytes) -> None:
        """Look at bytes before the machine gets them."""
        for frame in self._reader.feed(data):
            header = frame.header
            sent = self._session.window.get(header.get("sequence", 0))
            if sent is not None:
                self._said(sent.frame)
            if header["op"] == "confirm" and sent is not None:
                self.confirmed.append(sent.frame)
            elif header["op"] == "error" and not header.keys() & {"sequence", "request"}:
                self._refused(header["code"], header["text"])

    def forget(self) -> None:
        """The session is another one."""
        self.confirmed.clear()
        self._answered_below = 1

    def _said(self, frame: bytes) -> int:
        """Note what a frame told the server; return its sequence."""
        (header,) = (each.header for each in wire.FrameReader().feed(frame))
        self._answered_below = max(self._answered_below, header["answered_below"])
        return int(header["sequence"])
