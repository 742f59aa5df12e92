"""Run as a process: ask a broker for signs of life until standard input ends, then print how long they took."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from time import perf_counter

import minibroker

PAUSE_S = 0.002


async def main(url: str) -> None:
    """Ping again and again; the first line says that it has begun."""
    took: list[float] = []
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with minibroker.connect(url, timeout=30) as broker:
        await broker.ping()
        print("begun", flush=True)
        while not ended.done():
            began = perf_counter()
            await broker.ping()
            took.append(perf_counter() - began)
            # One after the other without a pause would itself be most of what the broker does.
            await asyncio.wait([ended], timeout=PAUSE_S)
    took.sort()
    last = len(took) - 1
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    print(
        json.dumps(
            {"count": len(took)}
            | {name: round(took[int(last * share)] * 1_000, 3) for name, share in shares.items()}
        )
    )


if __name__ == "__main__":
    asyncio.run(main(os.environ["MINIBROKER_URL"]))
