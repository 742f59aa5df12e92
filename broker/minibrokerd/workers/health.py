"""Whether workers are alive: a file, and a port, that say when the broker last answered and work was last done.

The file is written again at each answer of the broker, so its age is the news: `minibroker ping --worker FILE`.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import suppress
from typing import Any, Final

from minibrokerd.process.logs import events

BEAT_S: Final = 5.0
STALE_S: Final = 4 * BEAT_S
REQUEST_S: Final = 5.0


class Health:
    """What is known of `count` workers."""

    def __init__(self, count: int) -> None:
        self._started_unix = time.time()
        self._beats = dict.fromkeys(range(1, count + 1), 0.0)  # unix times of the last answers
        self._work_unix = 0.0
        self._path = ""

    def beat(self, number: int, work_unix: float) -> None:
        """Note an answer of the broker to worker `number`; `work_unix`: when it last did something."""
        self._beats[number] = time.time()
        self._work_unix = max(self._work_unix, work_unix)
        if self._path and self.is_well():
            self._write()

    def is_well(self) -> bool:
        """Return whether every worker had an answer of late."""
        return min(self._beats.values()) >= time.time() - STALE_S

    def status(self) -> dict[str, Any]:
        """Return what the file and the port say. Times are unix seconds, 0: never."""
        return {
            "well": self.is_well(),
            "workers": len(self._beats),
            "last_heartbeat_unix": round(min(self._beats.values()), 3),
            "last_work_unix": round(self._work_unix, 3),
            "started_unix": round(self._started_unix, 3),
            "pid": os.getpid(),
        }

    async def serve(self, path: str | None, port: int | None) -> None:
        """Write the file and answer on the port, until cancelled; does nothing without them."""
        self._path = path or ""
        if port is None:
            return
        try:
            server = await asyncio.start_server(self._answer, "127.0.0.1", port)
        except OSError as error:
            events.error("health_failed", text=str(error))
            return
        where = server.sockets[0].getsockname()
        events.info("health", address=f"http://{where[0]}:{where[1]}")
        async with server:
            await server.serve_forever()

    def _write(self) -> None:
        made = f"{self._path}.{os.getpid()}"
        try:
            with open(made, "w", encoding="utf-8") as file:
                json.dump(self.status(), file)
            os.replace(made, self._path)
        except OSError as error:
            events.error("health_failed", text=str(error))
            self._path = ""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(REQUEST_S):
                await reader.readuntil(b"\r\n\r\n")
                body = json.dumps(self.status()).encode()
                said = "200 OK" if self.is_well() else "503 Service Unavailable"
                head = f"HTTP/1.1 {said}\r\nContent-Type: application/json\r\n"
                head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        writer.close()


def age_s(path: str) -> float:
    """Return how long ago the file at `path` was written; OSError if there is none."""
    return time.time() - os.stat(path).st_mtime
