"""One side of a comparison while it runs: its server, its client processes, and one repetition of a work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from time import monotonic, perf_counter
from typing import Any

from benchmarks.bench import end
from benchmarks.gauges import percentile
from benchmarks.peers.servers import Server, SideFailed
from benchmarks.peers.works import BODY_BYTES, IN_FLIGHT, RATE, WINDOWED, Work

ROOT = Path(__file__).resolve().parents[2]
FILL_BATCH = 100
FILL_BYTES = 8 * 1024 * 1024  # in flight while a queue is filled
MOST_MESSAGES = 500_000
MOST_BYTES = 200 * 1024 * 1024
ANSWER_TIMEOUT_S = 120.0  # of a client that hangs
WARM_UP = 500  # messages of a round
FILL_SHARE = 2.0  # filling the queue may take this much longer than the repetition it is for

Measured = dict[str, Any]


@dataclass(slots=True)
class Sample:
    """The figure of one repetition, in the unit of its work, and what stands beside it."""

    value: float
    seconds: float
    beside: dict[str, float] = field(default_factory=dict)


class Contestant:
    """Started on entering an ExitStack, which also ends it; its queue is empty between repetitions."""

    def __init__(self, stack: ExitStack, peer: str, server: Server, client_option: str) -> None:
        """`peer` names the client, which is told `client_option`; the server is started here."""
        self.peer = peer
        self.server = server
        stack.callback(server.close)
        self._stack, self._option = stack, client_option
        self._clients: list[subprocess.Popen[str]] = []
        self._fill_rate = float(MOST_MESSAGES)
        self.server.start()

    def clients(self, count: int) -> Sequence[subprocess.Popen[str]]:
        """Return this many client processes, started when they are first needed."""
        while len(self._clients) < count:
            client = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.peers.worker", self.peer, self.server.url, self._option],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )  # fmt: skip
            self._clients.append(client)
            self._stack.callback(end, client)
            exchange([client], {"do": "waiting"})  # it has connected when it answers
        return self._clients[:count]

    def drop_clients(self) -> None:
        """End the client processes; new ones come when they are needed."""
        for client in self._clients:
            end(client)
        self._clients.clear()

    def order(self, do: str, clients: int = 1, **order: object) -> Measured:
        """Give the order to so many clients, and return the answer of the first, with the time of all."""
        return exchange(self.clients(clients), {"do": do, **order})

    def warm_up(self) -> None:
        """Publish and consume for as long as the server takes to reach its pace."""
        ends = monotonic() + self.server.warm_up_s
        while monotonic() < ends:
            for do in ("one", "tasks", "batches"):
                self.order(do, body=BODY_BYTES, count=WARM_UP, batch=FILL_BATCH, window=IN_FLIGHT)
                many = do != "one"
                self.order("consume", body=BODY_BYTES, count=WARM_UP, prefetch=32, many=many)

    def fill(self, count: int, body_bytes: int) -> None:
        """Publish `count` messages, untimed, as fast as it goes."""
        window = max(1, min(IN_FLIGHT, FILL_BYTES // (FILL_BATCH * body_bytes)))
        done = self.order("batches", body=body_bytes, count=count, batch=FILL_BATCH, window=window)
        self._fill_rate = count / done["seconds"]

    def repeat(self, work: Work, count: int, rate: float = 0.0) -> Sample:
        """Do a work once with `count` messages and return its figure."""
        order = {
            "body": work.body_bytes,
            "count": count,
            "batch": work.batch,
            "window": work.window,
        }
        if work.do == "cpu":
            return self._cpu(work, order)
        if work.do == "cycle":
            return self._cycle(work, order)
        if work.do == "consume":
            self.fill(count, work.body_bytes)
            done = self.order(
                "consume", **order, prefetch=work.prefetch, many=self._acks_many(work)
            )
        else:
            order["count"] = count // work.clients
            done = self.order(work.do, work.clients, **order, prefetch=work.prefetch, rate=rate)
            self.order("purge")
        return sample(work, count, done)

    def _acks_many(self, work: Work) -> bool:
        return work.batched if self.peer == "minibroker" else work.many_acks

    def _cycle(self, work: Work, order: Measured) -> Sample:
        before = self.server.cpu_s()
        done = self.order("cycle", **order, prefetch=work.prefetch)
        cost_us = (self.server.cpu_s() - before) / order["count"] * 1e6
        seen_us = percentile(done["calls"], 50)
        return Sample(cost_us, done["seconds"], {"publish_to_handler_us": round(seen_us, 1)})

    def _cpu(self, work: Work, order: Measured) -> Sample:
        before = self.server.cpu_s()
        done = self.order("batches", **order)
        between = self.server.cpu_s()
        prefetch = work.prefetch if self.peer in WINDOWED else work.prefetch // 2
        consumed = self.order("consume", **order, prefetch=prefetch, many=self._acks_many(work))
        after = self.server.cpu_s()
        count = order["count"]
        publish_us = (between - before) / count * 1e6
        consume_us = (after - between) / count * 1e6
        beside = {"publish_us": round(publish_us, 2), "consume_us": round(consume_us, 2)}
        return Sample(publish_us + consume_us, done["seconds"] + consumed["seconds"], beside)

    def calibrate(self, work: Work, seconds: float) -> int:
        """Warm up, and return the messages with which a repetition takes about this long."""
        step = max(work.step * work.clients, FILL_BATCH)
        most = min(MOST_MESSAGES, MOST_BYTES // work.body_bytes) // step * step
        count = step
        while True:
            took = self.repeat(work, count).seconds
            fitting = count * seconds / max(took, 1e-6)
            if work.do == "consume":
                fitting = min(fitting, self._fill_rate * seconds * FILL_SHARE)
            wanted = max(step, min(most, int(fitting) // step * step))
            if took >= seconds / 4 or wanted <= count:
                return wanted
            count = min(wanted, count * 10)


def sample(work: Work, count: int, done: Measured) -> Sample:
    """Turn the answer of a client into the figure of a work: a rate, or the p50 of calls."""
    if work.unit == RATE:
        return Sample(count / done["seconds"], done["seconds"])
    p50, p99 = percentile(done["calls"], 50), percentile(done["calls"], 99)
    return Sample(p50, done["seconds"], {"p99_us": round(p99, 1)})


def exchange(clients: Sequence[subprocess.Popen[str]], order: Measured) -> Measured:
    """Send an order to all clients; return the first answer, with the seconds until the last came."""
    started = perf_counter()
    for client in clients:
        assert client.stdin is not None
        client.stdin.write(json.dumps(order) + "\n")
        client.stdin.flush()
    answers = [answer_of(client) for client in clients]
    if len(clients) > 1:
        answers[0]["seconds"] = perf_counter() - started
    return answers[0]


def answer_of(client: subprocess.Popen[str]) -> Measured:
    """Read one answer."""
    assert client.stdout is not None
    watch = Timer(ANSWER_TIMEOUT_S, client.kill)
    watch.start()
    line = client.stdout.readline()
    watch.cancel()
    if not line:
        raise SideFailed(f"a client ended with {client.wait()}; its error stands above")
    answer: Measured = json.loads(line)
    return answer
