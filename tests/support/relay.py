"""A relay between client and broker that can swallow answers and cut connections, as a network does."""

from __future__ import annotations

import asyncio


class Relay:
    """Use it as `async with Relay(port) as relay`, and connect to `relay.url`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.swallowing = False  # what the broker says from now on does not arrive
        self.swallowed = asyncio.Event()

    @property
    def url(self) -> str:
        """The address for `minibroker.connect`."""
        assert self._server is not None
        return f"minibroker://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._pipes)

    def cut(self) -> None:
        """End all connections, and carry what is said on later ones."""
        self.swallowing = False
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(far_writer)
        for source, sink, back in ((reader, far_writer, False), (far_reader, writer, True)):
            pipe = asyncio.ensure_future(self._carry(source, sink, back))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, back: bool
    ) -> None:
        try:
            while data := await source.read(65_536):
                if back and self.swallowing:
                    self.swallowed.set()
                else:
                    sink.write(data)
        except OSError:
            pass  # it was cut
        finally:
            sink.transport.abort()
            self._writers.discard(sink)
