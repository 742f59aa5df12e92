"""`/healthz` and `/readyz` in each phase of the broker's life."""

from __future__ import annotations

import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import minibroker.sync
from minibrokerd.http.application import application
from minibrokerd.http.gate import Gate
from minibrokerd.http.options import HttpOptions
from minibrokerd.log.replication import Replication
from minibrokerd.monitoring.view import Phase
from support.broker import BrokerServer
from support.processes import lasts, look_until

GATED = Path(__file__).resolve().parents[1] / "support" / "gated_broker.py"
BETWEEN_READS_S = 0.1
OPENS_AFTER_S = 2.0  # in a recovery that takes longer, the port opens in its midst


@pytest.mark.parametrize(
    ("phase", "status", "text"),
    [
        (Phase.RECOVERING, 503, "recovering 42 %\n"),
        (Phase.READY, 200, "ready\n"),
        (Phase.DRAINING, 503, "draining\n"),
        (Phase.STANDBY, 503, "standby 10.0.0.2:7272 leads, 1.2 s behind\n"),
    ],
)
async def test_alive_in_each_phase_and_ready_in_one(phase: Phase, status: int, text: str) -> None:
    """Without a token, and with the reason; the loop turns in all of them."""
    log = SimpleNamespace(recovered_percent=42)
    subject: Any = SimpleNamespace(
        phase=phase, log=log, active="10.0.0.2:7272", replication=lambda: Replication(lag_s=1.2)
    )
    transport = httpx.ASGITransport(application(subject, Gate(HttpOptions())))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.text) == (status, text)
        assert (await client.get("/healthz")).status_code == 200


def ask(url: str, path: str = "/readyz") -> tuple[int, str]:
    """Return how it is answered; 0 while nobody listens."""
    try:
        answer = httpx.get(url + path, trust_env=False, timeout=30)
    except httpx.TransportError:
        return 0, ""
    return answer.status_code, answer.text


def let_one_through(gate: Path) -> None:
    """Let one call through, if one waits."""
    with suppress(OSError):
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))


@pytest.fixture
def gated(tmp_path: Path) -> Any:
    """A broker whose disk hangs while there are FIFOs `reads` and `writes`, and the address of its page."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    server = BrokerServer(
        tmp_path / "data",
        *("--segment-bytes", "64K", "--http", f"127.0.0.1:{port}"),
        command=(sys.executable, str(GATED)),
        env={
            "MINIBROKER_NO_HTTP": "0",
            "GATE_READS": str(tmp_path / "reads"),
            "GATE_WRITES": str(tmp_path / "writes"),
        },
    )
    yield server, f"http://127.0.0.1:{port}"
    server.close()


def test_a_broker_that_recovers_is_alive_and_not_ready(gated: Any, tmp_path: Path) -> None:
    """It says how far it is, and has no queue to show yet; when it is through it is ready."""
    server, url = gated
    with minibroker.sync.connect(server.url) as broker:
        for _ in range(100):
            broker.queue("mail").publish_many([b"m" * 10_000] * 3)
    assert server.stop() == 0
    gate = tmp_path / "reads"
    os.mkfifo(gate)
    process = server.launch()

    def has_begun() -> bool:  # the first reads are of the lock
        let_one_through(gate)
        return sum("gate: reads" in line for line in server.lines) > 5

    look_until(has_begun, process, "it reads the log")
    assert lasts(process, OPENS_AFTER_S + 0.1)
    said: dict[str, tuple[int, str]] = {}

    def is_told() -> bool:
        assert lasts(process, BETWEEN_READS_S)
        let_one_through(gate)
        for path, asked in waiting.items():
            if asked.done() and not said.get(path, (0, ""))[0]:
                said[path] = asked.result()
                waiting[path] = pool.submit(ask, url, path)
        return len(said) == 3 and all(status for status, _ in said.values())

    with ThreadPoolExecutor(3) as pool:
        paths = ("/readyz", "/healthz", "/api/v1/queues")
        waiting = {path: pool.submit(ask, url, path) for path in paths}
        look_until(is_told, process, "it has told how it is")
        os.rename(gate, tmp_path / "open")

        def is_ready() -> bool:
            let_one_through(tmp_path / "open")
            return ask(url)[0] == 200

        look_until(is_ready, process, "it is ready")
    assert said["/healthz"] == (200, "alive\n")
    status, text = said["/readyz"]
    assert (status, text.split()[0]) == (503, "recovering")
    assert 0 < int(text.split()[1]) < 100
    assert said["/api/v1/queues"][0] == 503


def test_a_broker_that_drains_is_alive_and_not_ready(gated: Any, tmp_path: Path) -> None:
    """While what it took is on its way to the disk; then it ends."""
    server, url = gated
    gate = tmp_path / "writes"
    look_until(lambda: ask(url)[0] == 200, server.process, "it is ready")
    with minibroker.sync.connect(server.url) as broker, ThreadPoolExecutor(1) as pool:
        os.mkfifo(gate)
        stored = pool.submit(broker.queue("mail").publish, b"m")
        look_until(lambda: "gate: writes" in server.output, server.process, "the disk hangs")
        server.process.terminate()
        look_until(lambda: ask(url) == (503, "draining\n"), server.process, "it drains")
        assert ask(url, "/healthz") == (200, "alive\n")
        os.rename(gate, tmp_path / "open")
        let_one_through(tmp_path / "open")
        assert stored.result().durability == "sync"
    assert server.process.wait(30) == 0
