"""A connection in process: what a client writes is taken at once, what it is sent waits until it reads.

The server's end has the names of asyncio's transports, so that the same connection code serves it. No more is kept
for a client than a socket would: from the soft limit on the broker delivers nothing, at the hard one it ends the
connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from minibrokerd.net.connection import ServerConnection

if TYPE_CHECKING:
    from minibrokerd.inprocess.memory_broker import MemoryBroker


class Pipe:
    """The client's end. `readable` is called, in any thread, when there is something to `read` or the end came.

    `due` is called when the broker's next timer has changed: whoever waits must `step` the broker when it is due.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        connection: ServerConnection,
        readable: Callable[[], object],
        due: Callable[[], object],
    ) -> None:
        self._broker = broker
        self._connection = connection
        self.readable = readable
        self.due = due
        self.transport = PipeTransport(self)
        self.is_ended = False  # by either side
        connection.connection_made(self.transport)  # type: ignore[arg-type]  # as far as it is used

    @property
    def session(self) -> int:
        """The session that it logged in for; 0: none yet."""
        return self._connection.session

    def write(self, frames: Iterable[bytes]) -> None:
        """Hand frames to the broker, which does all that follows from them before this returns."""
        with self._broker.lock:
            self.post(frames)
            self._broker.step()

    def post(self, frames: Iterable[bytes]) -> None:
        """Hand frames to the broker, which is being stepped: what follows from them comes in that step."""
        with self._broker.failing():
            for frame in frames:
                if self.transport.closing:
                    break
                self._connection.data_received(frame)

    def read(self) -> bytes:
        """Return all that came since the last call."""
        with self._broker.lock:
            with self._broker.failing():
                data = self.transport.take()
            self._broker.step()  # a reader that was slow gets more
            return data

    def close(self) -> None:
        """End the connection."""
        with self._broker.lock:
            self.end()
            self._broker.step()

    def end(self) -> None:
        """End it from either side; the broker is told in its next step."""
        if self.is_ended:
            return
        self.is_ended = self.transport.closing = True
        self._broker.pipes.discard(self)
        self._broker.loop.call_soon(self._connection.connection_lost, None)
        self.readable()


class PipeTransport:
    """The server's end of a pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._taken: list[bytes] = []  # what the client has not read
        self._size = 0
        self._high = 0
        self._paused = False
        self.closing = False

    def set_write_buffer_limits(self, high: int) -> None:
        """Say from which size on the protocol is told to pause."""
        self._high = high

    def get_write_buffer_size(self) -> int:
        """Return what the client has not read, in bytes."""
        return self._size

    def get_extra_info(self, name: str) -> None:
        """There is no socket and no address."""

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self.closing

    def can_write_eof(self) -> bool:
        """There is no half close."""
        return False

    def write(self, data: bytes) -> None:
        """Keep bytes for the client."""
        if not self._size:
            self._pipe.readable()
        self._taken.append(data)
        self._size += len(data)
        if self._size > self._high and not self._paused:
            self._paused = True
            self._pipe._connection.pause_writing()

    def writelines(self, pieces: Iterable[bytes]) -> None:
        """Keep pieces as one."""
        self.write(b"".join(pieces))

    def take(self) -> bytes:
        """Give out all that is kept."""
        data, self._taken, self._size = b"".join(self._taken), [], 0
        if self._paused and not self.closing:
            self._paused = False
            self._pipe._connection.resume_writing()
        return data

    def close(self) -> None:
        """End behind what was written."""
        self._pipe.end()

    def abort(self) -> None:
        """End at once."""
        self._taken, self._size = [], 0
        self._pipe.end()
