"""Three servers each, on this machine: nodes of RabbitMQ that are a cluster, and servers of NATS."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from time import monotonic, sleep

import nats
from benchmarks.peers.servers import MinibrokerServer, RabbitServer, Server, SideFailed

from support.nats_nodes import Nodes

CONTROL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
CONTROL_S = 60.0
SETTLE_S = 60.0  # until a stream has the leader that it will keep
NODES = 3


class RabbitCluster(RabbitServer):
    """Three nodes that share a port mapper; clients are sent to the first, on which they make their queues."""

    def __init__(self, folder: Path, option: str) -> None:
        super().__init__(folder / "one", option)
        self._others = [
            RabbitServer(folder / name, option, joins=self) for name in ("two", "three")
        ]

    def start(self) -> None:
        """Start all nodes, and have the others join the first."""
        super().start()
        for node in self._others:
            node.start()
            for words in (["stop_app"], ["join_cluster", self.node], ["start_app"]):
                self._control(node, *words)

    def _control(self, node: RabbitServer, *words: str) -> None:
        ran = subprocess.run(
            [CONTROL, "--node", node.node, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **node.environment()},
            timeout=CONTROL_S,
            check=False,
        )
        if ran.returncode:
            raise SideFailed(f"rabbitmqctl {words[0]}: {ran.stdout}{ran.stderr}")

    def close(self) -> None:
        """End all nodes, and the port mapper."""
        for node in self._others:
            node.close()
        super().close()


class NatsCluster(Server):
    """Three servers that sync what they ack; whoever makes a stream says that all of them have it."""

    program, scheme = "nats-server", "nats"

    def __init__(self, folder: Path, option: str) -> None:
        super().__init__(folder, option)
        self.nodes = Nodes(folder / "nodes", NODES)
        self.port = self.nodes.all[0].port

    def command(self) -> list[str]:
        """Return nothing: the nodes have a file each."""
        return []

    def start(self) -> None:
        """Start all of them."""
        self.nodes.start()

    def close(self) -> None:
        """End all of them."""
        self.nodes.end()


class StreamBroker(MinibrokerServer):
    """minibroker, with its log on three servers of NATS."""

    STREAM = "orders"

    def __init__(self, folder: Path, cluster: NatsCluster) -> None:
        self._address = cluster.nodes.address(self.STREAM)
        super().__init__(folder, f"--no-http --log {self._address}")

    @property
    def servers(self) -> str:
        """The address of the three servers, as far as the name of a stream."""
        return self._address.partition("/orders")[0]

    def leader(self) -> str:
        """Return who leads the stream: bare appends are to go the same way."""
        ends = monotonic() + SETTLE_S
        while monotonic() < ends:
            info = asyncio.run(self._ask())
            if info.cluster is not None and info.cluster.leader:
                return str(info.cluster.leader)
            sleep(0.5)
        raise SideFailed("the stream has no leader")

    async def _ask(self) -> nats.js.api.StreamInfo:
        async with await nats.connect(self.servers.split(",")[0]) as client:
            return await client.jetstream().stream_info(self.STREAM)

    def newest_entry_bytes(self) -> int:
        """Return the size of what the broker appended last."""

        async def ask() -> int:
            async with await nats.connect(self.servers.split(",")[0]) as client:
                subject = f"minibroker.{self.STREAM}.records"
                newest = await client.jetstream().get_last_msg(self.STREAM, subject)
                return len(newest.data or b"")

        return asyncio.run(ask())
