"""`make bench-replicated`: the same work through queues whose messages three servers have before a confirm.

    make bench-replicated ARGS="--quick"
    make bench-replicated ARGS="--rounds 5 --work publish-1000"
    make bench-replicated ARGS=takeovers

minibroker with its log on three servers of NATS, RabbitMQ's quorum queues on three nodes, and JetStream used as
a work queue by nats-py, all of them syncing what they confirm; and minibroker on files. They take turns, a
repetition each. Beside the lone publish stand bare appends to a stream: what a broker on it cannot do without.
All are on this machine: what three have to write lies on one disk, and takes its cores.

`takeovers`: how long it is from the end of a broker to the first confirm of the next one; see takeovers.py.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))  # has the servers of NATS

from benchmarks.gauges import LoopGauge, SyncGauge, record_bytes
from benchmarks.peers.__main__ import header, stopped
from benchmarks.peers.contestant import Contestant, Sample
from benchmarks.peers.match import gauge
from benchmarks.peers.servers import MinibrokerServer, Server
from benchmarks.peers.works import BODY_BYTES, WORKS, Work
from benchmarks.replicated import takeovers
from benchmarks.replicated.clusters import NatsCluster, RabbitCluster, StreamBroker
from benchmarks.replicated.page import markdown, row_of

FOLDER: Final = Path(__file__).resolve().parents[1]
LONE: Final = "publish-one"
NAMES: Final = (LONE, "publish-1000", "publish-batch", "consume-32", "consume-1000")
APPENDS: Final = {"append, nats-py": "nats-py", "append, own": "own"}  # only lone


class Borrowed(NatsCluster):
    """The servers of NATS that somebody else has started, and ends."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def url(self) -> str:
        """The address."""
        return self._url

    def start(self) -> None:
        """They run."""

    def close(self) -> None:
        """They are not ours."""


class Sides:
    """All sides, started; each has an empty queue between two repetitions."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        cluster = NatsCluster(folder / "nats", "")
        stack.callback(cluster.close)
        cluster.start()
        stream = StreamBroker(folder / "stream", cluster)
        self.all = {
            "files": self._side(
                "minibroker", MinibrokerServer(folder / "files", "--no-http"), "sync"
            ),
            "stream": self._side("minibroker", stream, "sync"),
            "rabbitmq": self._side("rabbitmq", RabbitCluster(folder / "rabbitmq", ""), "quorum"),
            "jetstream": self._side(
                "nats", Borrowed(f"nats://127.0.0.1:{cluster.port}"), "replicated"
            ),
        }
        for contestant in self.all.values():
            contestant.warm_up()
        leader = stream.leader()
        self.all["stream"].order("one", body=BODY_BYTES, count=1)
        self.append_bytes = stream.newest_entry_bytes()
        self.all["stream"].order("purge")
        for name, way in APPENDS.items():
            bare = Borrowed(f"{stream.servers}/bare")
            self.all[name] = self._side("appends", bare, f"{leader}:{way}")
        self.versions = {
            "rabbitmq": self.all["rabbitmq"].server.version(),
            "nats-server": cluster.version(),
            **{name: importlib.metadata.version(name) for name in ("nats-py", "aio-pika")},
        }

    def _side(self, client: str, server: Server, option: str) -> Contestant:
        return Contestant(self._stack, client, server, option)

    def doing(self, work: Work) -> dict[str, Contestant]:
        """Return the sides that a work is measured on."""
        return {
            name: side
            for name, side in self.all.items()
            if work.name == LONE or name not in APPENDS
        }


def measured(sides: Sides, work: Work, rounds: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Measure one work on all sides in turns; return its row."""
    doing = sides.doing(work)
    # The larger bodies of bare appends: what the broker makes of such a message.
    bare = replace(work, body_bytes=sides.append_bytes)
    works = {name: bare if name in APPENDS else work for name in doing}
    counts = {name: side.calibrate(works[name], seconds) for name, side in doing.items()}
    sync, loop = SyncGauge(folder, record_bytes(1, BODY_BYTES)), LoopGauge()
    samples: dict[str, list[Sample]] = {name: [] for name in doing}
    try:
        for _ in range(rounds):
            gauge(sync, loop)
            for name, side in doing.items():
                samples[name].append(side.repeat(works[name], counts[name]))
        gauge(sync, loop)
    finally:
        sync.close()
    gauges = {"sync_p50_us": round(sync.p50_us, 1), "loop_per_second": round(loop.per_second)}
    return row_of(work, samples, counts, gauges)


def rates(out: Path, rounds: int, seconds: float, wanted: Sequence[Work]) -> None:
    """Measure, and write what there is after every row."""
    folder = FOLDER / "out" / f"replicated-{os.getpid()}"
    folder.mkdir(parents=True)
    out.mkdir(parents=True, exist_ok=True)
    try:
        told = header(folder)
        with ExitStack() as stack:
            sides = Sides(stack, folder)
            told |= {**sides.versions, "bytes_of_an_append": sides.append_bytes, "rounds": rounds}
            rows: list[dict[str, Any]] = []
            for work in wanted:
                rows.append(measured(sides, work, rounds, seconds, folder))
                result = json.dumps({"machine": told, "rows": rows}, indent=1)
                (out / "replicated.json").write_text(result + "\n", "utf-8")
                page = markdown(told, rows)
                (out / "replicated.md").write_text(page, "utf-8")
                print(page.rstrip().rpartition("\n")[2], flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"written: {out}", file=sys.stderr)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicated", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("rates", "takeovers"), default="rates")
    parser.add_argument("--quick", action="store_true", help="try everything once, shortly")
    parser.add_argument("--work", nargs="+", choices=NAMES, default=NAMES, help="works")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each work and side")
    parser.add_argument("--seconds", type=float, default=0.8, help="of a repetition")
    parser.add_argument("--out", type=Path, help="folder of the result")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, stopped)
    if options.what == "takeovers":
        asyncio.run(takeovers.main())
        return
    works = {work.name: work for work in WORKS}
    rounds, seconds = (1, 0.1) if options.quick else (options.rounds, options.seconds)
    out = options.out or FOLDER / ("out/replicated" if options.quick else "results")
    rates(out, rounds, seconds, [works[name] for name in options.work])


if __name__ == "__main__":
    main()
