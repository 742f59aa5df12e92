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

    def opened(self) -> None:
        """A connection begins."""
        self._reader = wire.FrameReader()

    def came(self, data: bytes) -> None:
        """Look at bytes before the machine gets them."""
        for frame in self._reader.feed(data):
            header = frame.header
            sent = self._session.window.get(header.get("sequence", 0))
            if header["op"] == "confirm" and sent is not None:
                self.confirmed.append(sent.frame)
            elif header["op"] == "error" and not header.keys() & {"sequence", "request"}:
                self._refused(header["code"], header["text"])

    def forget(self) -> None:
        """The session is another one."""
        self.confirmed.clear()
