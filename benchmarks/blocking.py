"""`make bench-blocking`: one publish at a time from code that blocks, beside the asyncio client and redis-py.

    make bench-blocking ARGS="--pairs 9"

A broker with its defaults and a Redis with `appendfsync always` run all the time; every client is a process of its
own, and they take turns, A B C A B C. Ratios are taken within a round. The last figure is that of 16 threads of
one process which each publish one at a time on one connection, beside one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks import bench
from benchmarks.gauges import LoopGauge, SyncGauge, percentile, record_bytes
from benchmarks.peers.__main__ import stopped
from benchmarks.peers.servers import MinibrokerServer, RedisServer
from benchmarks.peers.sides import REDIS
from benchmarks.rows import BODY_BYTES

ROOT = Path(__file__).resolve().parents[1]
THREADS = 16
CALLS = 2_000
BODY = b"x" * BODY_BYTES

Times = list[float]


# ---- the client processes: a line on standard input is a repetition, a JSON line its answer ----


def timed(publish: Callable[[], object], calls: int) -> Times:
    """Return how long each of some calls took, in us."""
    took = []
    for _ in range(calls):
        before = perf_counter()
        publish()
        took.append((perf_counter() - before) * 1e6)
    return took


def answer(repetition: Callable[[], Any]) -> None:
    """Do a repetition for each line, until there is none."""
    while sys.stdin.readline():
        print(json.dumps(repetition()), flush=True)


async def awaited(url: str, calls: int) -> None:
    """Serve with the asyncio client."""
    import minibroker

    loop = asyncio.get_running_loop()
    async with minibroker.connect(url) as broker:
        queue = broker.queue("asyncio")
        while await loop.run_in_executor(None, sys.stdin.readline):
            took = []
            for _ in range(calls):
                before = perf_counter()
                await queue.publish(BODY)
                took.append((perf_counter() - before) * 1e6)
            print(json.dumps(took), flush=True)
            await queue.purge()


def with_asyncio(url: str, calls: int) -> None:
    """`minibroker`, on uvloop."""
    import uvloop

    uvloop.run(awaited(url, calls))


def with_sync(url: str, calls: int) -> None:
    """`minibroker.sync`, in one thread."""
    import minibroker.sync

    with minibroker.sync.connect(url) as broker:
        queue = broker.queue("blocking")

        def repetition() -> Times:
            took = timed(lambda: queue.publish(BODY), calls)
            queue.purge()
            return took

        answer(repetition)


def with_redis(url: str, calls: int) -> None:
    """`redis.Redis`, which blocks: XADD."""
    import redis

    client = redis.Redis.from_url(url)

    def repetition() -> Times:
        took = timed(lambda: client.xadd("jobs", {"b": BODY}), calls)
        client.delete("jobs")
        return took

    answer(repetition)


def with_threads(url: str, calls: int) -> None:
    """`minibroker.sync`: the rates of one thread and of 16, which share a connection."""
    import minibroker.sync

    with minibroker.sync.connect(url) as broker:
        queue = broker.queue("threads")

        def rate(threads: int) -> float:
            every = [
                threading.Thread(target=timed, args=(lambda: queue.publish(BODY), calls))
                for _ in range(threads)
            ]
            started = perf_counter()
            for thread in every:
                thread.start()
            for thread in every:
                thread.join()
            found = threads * calls / (perf_counter() - started)
            queue.purge()
            return found

        answer(lambda: [rate(1), rate(THREADS)])


CLIENTS: dict[str, Callable[[str, int], None]] = {
    "asyncio": with_asyncio,
    "sync": with_sync,
    "redis": with_redis,
    "threads": with_threads,
}


# ---- who measures ----


def client(stack: ExitStack, name: str, url: str, calls: int) -> subprocess.Popen[str]:
    """Start the client process of this name; it ends with the stack."""
    return bench.start(
        stack, "benchmarks.blocking", "--client", name, "--url", url, "--calls", str(calls)
    )


def measure(folder: Path, pairs: int, calls: int = CALLS) -> dict[str, Any]:
    """Measure `pairs` rounds, behind one that only warms up."""
    rounds: dict[str, list[Any]] = {name: [] for name in CLIENTS}
    has_redis = not REDIS.missing()
    folder.mkdir(parents=True)
    sync, loop = SyncGauge(folder, record_bytes(1, BODY_BYTES)), LoopGauge()
    with ExitStack() as stack:
        stack.callback(sync.close)
        broker = MinibrokerServer(folder / "broker", "")
        stack.callback(broker.close)
        broker.start()
        urls = dict.fromkeys(CLIENTS, broker.url)
        if has_redis:
            redis = RedisServer(folder / "redis", "always")
            stack.callback(redis.close)
            redis.start()
            urls["redis"] = redis.url
        else:
            print(f"redis: skipped: {REDIS.missing()}", flush=True)
            del urls["redis"]
        clients = {name: client(stack, name, url, calls) for name, url in urls.items()}
        for at in range(pairs + 1):
            for name, process in clients.items():
                found = bench.repeat(process)
                if at:
                    rounds[name].append(found)
            sync.measure(200)
            loop.measure(0.1)
        versions = {"minibroker": importlib.metadata.version("minibroker")}
        if has_redis:
            versions |= {"redis": redis.version(), "redis-py": importlib.metadata.version("redis")}
    return {
        **bench.machine("uvloop"),
        "versions": versions,
        "fdatasync_p50_us": round(sync.p50_us, 1),
        "loop_per_second": round(loop.per_second),
        "p50_us": {
            name: [round(percentile(each, 50), 1) for each in rounds[name]]
            for name in ("asyncio", "sync", "redis")
            if rounds[name]
        },
        "rates": [[round(rate) for rate in each] for each in rounds["threads"]],
    }


def spread(values: Sequence[float]) -> str:
    """Return median and range."""
    return f"{median(values):.3g} ({min(values):.3g} - {max(values):.3g})"


def quotients(above: Sequence[float], below: Sequence[float]) -> str:
    """Return median and range of the quotients of two rows of figures."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def lines(made: dict[str, Any]) -> list[str]:
    """Return the result in words."""
    p50 = made["p50_us"]
    told = [
        f"{made['commit']}, Python {made['python']}, {made['cores']} cores, {made['system']}; "
        f"fdatasync p50 {made['fdatasync_p50_us']} us, loop {made['loop_per_second'] / 1e6:.0f} M/s; "
        + ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    ]
    told += [f"one publish at a time, {name}: p50 {spread(p50[name])} us" for name in p50]
    told.append(f"sync / asyncio: {quotients(p50['sync'], p50['asyncio'])}")
    if "redis" in p50:
        told.append(f"sync / redis: {quotients(p50['sync'], p50['redis'])}")
    one, many = zip(*made["rates"], strict=True)
    told.append(f"threads, one: {spread(one)} a second; {THREADS}: {spread(many)}")
    told.append(f"{THREADS} threads / one: {quotients(many, one)}")
    return told


def main() -> None:
    """Measure, or be one of the clients."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocking", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="rounds")
    parser.add_argument(
        "--calls", type=int, default=CALLS, help="of a repetition, and of each thread"
    )
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        CLIENTS[options.client](options.url, options.calls)
        return
    signal.signal(signal.SIGTERM, stopped)
    folder = ROOT / "benchmarks" / "out" / f"blocking-{os.getpid()}"
    try:
        made = measure(folder, options.pairs, options.calls)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    (folder.parent / "blocking.json").write_text(json.dumps(made, indent=1) + "\n", "utf-8")
    print("\n".join(lines(made)))


if __name__ == "__main__":
    main()
