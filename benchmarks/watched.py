"""`make bench-http`: what it costs to be watched or encrypted, in pairs on one machine (docs/performance.md).

- Everything on (the HTTP port, a scrape every ten seconds, an open page, tokens) beside everything off: rates.
- Publishes of 1,000 tasks beside a scrape a second and an open page, of a broker with 1,000 queues: their p99.
- One scrape of 10,000 queues, half of them with counts: the CPU of the server, which is its loop's.
- With TLS beside without: the rates of all rows of `make bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple
from urllib.request import Request, urlopen

import uvloop
from benchmarks.bench import ROOT, repeat, start_client
from benchmarks.gauges import percentile
from benchmarks.processes import COMPILED, cpu_seconds
from benchmarks.rows import BODY_BYTES, ROWS

import minibroker

SCRAPE_S: Final = 10.0
RATE_ROWS: Final = ("single-1000", "many-20", "consume-1000")
LOAD_S: Final = 4.0
TASKS: Final = 1_000
PAGE: Final = "/api/v1/live?queues=" + ",".join(f"queue-{n}" for n in range(100))
WATCHER: Final = """
import sys, threading, time, urllib.request
url, token, every_s, page = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
def ask(path):
    headers = {"authorization": "Bearer " + token} if token else {}
    return urllib.request.urlopen(urllib.request.Request(url + path, headers=headers))
def look():
    for _ in ask(page):
        pass
threading.Thread(target=look, daemon=True).start()
while True:
    ask("/metrics").read()
    time.sleep(every_s)
"""


class Broker(NamedTuple):
    """A running server: where its clients and browsers reach it, and its process."""

    url: str
    page: str
    pid: int


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Broker]:
    """Run a server."""
    command = [
        sys.executable,
        "-m",
        "minibrokerd",
        "serve",
        "--data-dir",
        str(folder),
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        [*command, *flags],
        env={**os.environ, **COMPILED, "MINIBROKER_HTTP_TOKEN": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        text = process.stdout.readline() + process.stdout.readline()
        found = re.search(r"listening on ([^\s,]+)[^\n]*(?:\n +http +(\S+))?", text)
        assert found, text
        yield Broker(f"minibroker://{found[1]}", found[2] or "", process.pid)
    finally:
        process.kill()
        process.communicate()
        shutil.rmtree(folder)


@contextmanager
def watching(broker: Broker, token: str, every_s: float) -> Iterator[None]:
    """Scrape, and look at the page, in a process of its own."""
    command = [sys.executable, "-c", WATCHER, broker.page, token, str(every_s), PAGE]
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        assert process.poll() is None, "the watcher has ended"
        process.kill()
        process.wait()


def token_for(folder: Path) -> str:
    """Make a token that may do everything; return it."""
    words = ["token", "add", "bench", "--queues", "*", "--may", "publish,consume,manage"]
    command = [sys.executable, "-m", "minibrokerd", *words, "--data-dir", str(folder)]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"mbt_\S+", made)
    assert found, made
    return found[0]


def rates(folder: Path, pairs: int) -> None:
    """Print the rates of everything on beside everything off."""
    token = os.environ["MINIBROKER_TOKEN"] = token_for(folder / "on")
    with (
        serving(folder / "on", "--http", "127.0.0.1:0") as on,
        serving(folder / "off", "--no-http") as off,
        watching(on, token, SCRAPE_S),
    ):
        beside("on/off", on, off, RATE_ROWS, pairs)
    del os.environ["MINIBROKER_TOKEN"]


def encrypted(folder: Path, pairs: int) -> None:
    """Print the rates with TLS beside those without."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    asked = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=bench"
    files = [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(["openssl", *asked.split(), *files], check=True, capture_output=True)
    flags = ["--tls-cert", str(certificate), "--tls-key", str(key)]
    os.environ["MINIBROKER_CA"] = str(certificate)
    with (
        serving(folder / "tls", "--no-http", *flags) as sealed,
        serving(folder / "plain", "--no-http") as plain,
    ):
        sealed = sealed._replace(url=sealed.url.replace("minibroker:", "minibrokers:"))
        beside("TLS/plain", sealed, plain, [row.name for row in ROWS], pairs)
    del os.environ["MINIBROKER_CA"]


def beside(what: str, one: Broker, other: Broker, names: Iterable[str], pairs: int) -> None:
    """Print a line for each row: the rate of `one` in times of that of `other`, and the CPU of both servers."""
    for name in names:
        row = next(row for row in ROWS if row.name == name)
        with ExitStack() as stack:
            clients = [start_client(stack, each.url, row, "uvloop") for each in (one, other)]
            for client in clients:
                repeat(client)  # to warm up
            ratios, costs, figures = [], [], []
            for at in range(pairs):
                rate, used = [0.0, 0.0], [0.0, 0.0]
                for side in (0, 1) if at % 2 else (1, 0):
                    before_s = cpu_seconds((one, other)[side].pid)
                    done = repeat(clients[side])
                    used[side] = cpu_seconds((one, other)[side].pid) - before_s
                    rate[side] = done["messages"] / done["seconds"]
                figures.append(rate[0])
                ratios.append(rate[0] / rate[1])
                costs.append(used[0] / used[1])
        print(
            f"{what} {name}: rate {median(ratios):.3f} ({min(ratios):.3f} - {max(ratios):.3f}), "
            f"CPU of the server {median(costs):.3f} ({min(costs):.3f} - {max(costs):.3f}), "
            f"{median(figures):,.0f} messages/s, pairs {pairs}",
            flush=True,
        )


async def publish_for(url: str, seconds: float) -> list[float]:
    """Publish with 1,000 tasks; return how long each call took, in ms."""
    took: list[float] = []
    body = b"x" * BODY_BYTES
    async with minibroker.connect(url) as connection:
        queue = connection.queue("bench")
        end_s = time.perf_counter() + seconds

        async def publish() -> None:
            while (began_s := time.perf_counter()) < end_s:
                await queue.publish(body)
                took.append(1_000 * (time.perf_counter() - began_s))

        await asyncio.gather(*(publish() for _ in range(TASKS)))
        await queue.purge()
    return took


async def make_queues(url: str, count: int) -> None:
    """Make queues; each second one gets a message."""
    async with minibroker.connect(url) as connection:
        for at in range(0, count, 500):
            some = [connection.queue(f"queue-{n}") for n in range(at, min(at + 500, count))]
            await asyncio.gather(*(queue.set() for queue in some))
            await asyncio.gather(*(queue.publish(b"x") for queue in some[::2]))


def latencies(folder: Path, pairs: int) -> None:
    """Print the p99 of publishes with and without somebody who watches."""
    with serving(folder / "watched", "--http", "127.0.0.1:0") as broker:
        run(make_queues(broker.url, 1_000))
        run(publish_for(broker.url, LOAD_S))
        ratios: list[float] = []
        both: tuple[list[float], list[float]] = [], []  # without, with
        for at in range(pairs):
            for watched in (at % 2 == 0, at % 2 == 1):
                with ExitStack() as stack:
                    if watched:
                        stack.enter_context(watching(broker, "", 1.0))
                    both[watched].append(percentile(run(publish_for(broker.url, LOAD_S)), 99))
            ratios.append(both[1][-1] / both[0][-1])
        print(
            f"publish p99 watched/not, 1,000 queues: {median(ratios):.2f} "
            f"({min(ratios):.2f} - {max(ratios):.2f}), "
            f"{median(both[1]):.2f} / {median(both[0]):.2f} ms, pairs {pairs}",
            flush=True,
        )


def scrapes(folder: Path, count: int) -> None:
    """Print what scrapes of 10,000 queues cost the server."""
    with serving(folder / "many", "--http", "127.0.0.1:0") as broker:
        run(make_queues(broker.url, 10_000))
        used: list[float] = []
        for _ in range(count):
            before_s = cpu_seconds(broker.pid)
            with urlopen(Request(f"{broker.page}/metrics")) as answer:
                size = len(answer.read())
            used.append(1_000 * (cpu_seconds(broker.pid) - before_s))
        print(
            f"scrape of 10,000 queues: {median(used):.0f} ms of CPU ({min(used):.0f} - {max(used):.0f}), "
            f"{size / 1e6:.1f} MB, scrapes {count}",
            flush=True,
        )


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on uvloop."""
    return uvloop.run(work)


PARTS: Final = {part.__name__: part for part in (scrapes, latencies, rates, encrypted)}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(
            f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}"
        )
    with tempfile.TemporaryDirectory(dir=ROOT / "benchmarks") as made:
        for part in options.parts:
            PARTS[part](Path(made), options.pairs)


if __name__ == "__main__":
    main()
