"""What a call takes of the log: request and reply of 100 bytes, one after the other and many at once.

    python -m benchmarks.replies [CALLS]

A row for each way to keep results. It counts bytes: other work on the machine only changes how many share a batch.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import uvloop
from benchmarks.fanout import running
from benchmarks.peers.servers import MinibrokerServer

import minibroker

BODY: Final = b"x" * 100
WAYS: Final[tuple[dict[str, int | str], ...]] = (
    {},
    {"results_in": "memory"},
    {"results_in": "memory", "durability": "memory"},
)


def logged_bytes(folder: Path) -> int:
    """Return how much of the segments is written: zeros at the end of one are room that is left."""
    segments = folder.glob("data/segment-*.log")
    return sum(len(segment.read_bytes().rstrip(b"\0")) for segment in segments)


async def measure(
    url: str, folder: Path, settings: dict[str, int | str], calls: int
) -> tuple[float, float]:
    """Return the bytes of a call, one after the other and all at once."""
    async with minibroker.connect(url) as caller, minibroker.connect(url) as worker:
        queue = caller.queue("rpc", result_ms=60_000, **settings)
        await queue.declared()
        serving = asyncio.create_task(worker.queue("rpc").run(_reply, concurrency=64))
        await queue.call(BODY)
        before = logged_bytes(folder)
        for _ in range(calls):
            await queue.call(BODY)
        between = logged_bytes(folder)
        await asyncio.gather(*(queue.call(BODY) for _ in range(calls)))
        after = logged_bytes(folder)
        serving.cancel()
        return (between - before) / calls, (after - between) / calls


async def _reply(message: Any) -> None:
    await message.complete(BODY)


def main() -> None:
    """Print the table."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    for settings in WAYS:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made) / "broker"
            with running(MinibrokerServer(folder, "")) as server:
                alone, together = uvloop.run(measure(server.url, folder, settings, calls))
        words = " ".join(f"{name}={value}" for name, value in settings.items()) or "default"
        print(f"{words:<40} {alone:5.0f} bytes one by one, {together:5.0f} of {calls} at once")


if __name__ == "__main__":
    main()
