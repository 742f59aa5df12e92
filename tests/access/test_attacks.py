"""Attacks by strangers: each attempt comes to its end by the broker's limits, and others are served meanwhile.

How long pings take is printed; what is checked is that all were answered: a busy machine makes any of them late.
`make attacks` tries thousands, and holds them to 20 ms.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest
from attacked import allow_everything, attacked
from attacks import ATTACKS, LASTING, told

import minibroker
import minibroker.sync
from minibrokerd.access.failures import MAX_ADDRESSES
from support.broker import COMMAND, BrokerServer, with_files
from support.certificates import Authority

COUNT = 120
LIMIT = 96
PAUSE_S = 1.0  # between two visits of one peer: without it the crowd is as fast as the machine
SMALL = ("--segment-bytes", "1MiB", "--no-http")


def descriptors(server: BrokerServer) -> int:
    """Return how many files the broker has open."""
    return len(os.listdir(f"/proc/{server.pid}/fd"))


@pytest.mark.parametrize("sealed", [False, True])
def test_each_attack_is_refused_and_pings_are_answered(
    sealed: bool, authority: Authority, server_files: tuple[Path, Path], tmp_path: Path
) -> None:
    """With and without TLS; nothing is left of them, and the right token gets in from the same address."""
    flags: tuple[str, ...] = SMALL
    if sealed:
        flags += ("--tls-cert", str(server_files[0]), "--tls-key", str(server_files[1]))
    token = allow_everything(tmp_path / "data")
    server = BrokerServer(tmp_path / "data", *flags)
    try:
        scheme = "minibrokers" if sealed else "minibroker"
        url = f"{scheme}://:{token}@{server.host}:{server.port}"
        ca = {"MINIBROKER_CA": str(authority.cert)}
        before = descriptors(server)
        for name in ATTACKS:
            refused, pings = attacked(server, name, COUNT, url, **ca)
            print(f"{name}: {refused} of {COUNT} refused; {pings}")
            assert refused == COUNT, name
            assert pings["count"], (
                name
            )  # a few are over in milliseconds: a hello in the clear, where TLS is asked
        with minibroker.sync.connect(
            url, ca=str(authority.cert) if sealed else None, connect_timeout=30
        ) as broker:
            broker.queue("q").publish(b"x")
        assert server.stop() == 0
        assert "loop_error" not in server.output
        assert "stray_error" not in server.output
        assert before < LIMIT
    finally:
        server.close()


async def test_half_open_peers_take_no_place_from_clients(tmp_path: Path) -> None:
    """More of them than there may be connections, coming without end: whoever logs in at once has his place."""
    token = allow_everything(tmp_path / "data")
    server = BrokerServer(tmp_path / "data", *SMALL, command=with_files(LIMIT))
    try:
        stop = asyncio.Event()

        async def crowd() -> None:
            while not stop.is_set():
                await told(server.host, server.port, b"")
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), PAUSE_S)

        tasks = [asyncio.create_task(crowd()) for _ in range(2 * LIMIT)]
        await asyncio.to_thread(server.prints, "connections_full")
        for _ in range(3):  # in a process of its own: here it would stand behind the crowd
            ping = await asyncio.create_subprocess_exec(
                *COMMAND, "ping", "--wait", "60", "--timeout", "60",
                env={**os.environ, "MINIBROKER_URL": server.url, "MINIBROKER_TOKEN": token},
            )  # fmt: skip
            assert await ping.wait() == 0
        stop.set()
        server.kill()
        await asyncio.gather(*tasks)
    finally:
        server.close()


async def flood(server: BrokerServer, count: int) -> int:
    """Log in with wrong tokens."""
    return await ATTACKS["wrong_tokens"](server.host, server.port, count)


def test_a_flood_of_wrong_tokens_fills_no_table(tmp_path: Path) -> None:
    """The log has a few lines for it, without any of the tokens."""
    allow_everything(tmp_path / "data")
    server = BrokerServer(tmp_path / "data", *SMALL)
    try:
        refused = asyncio.run(flood(server, 400))
        assert refused == 400
        assert server.stop() == 0
        told = [line for line in server.lines if "connection_refused" in line]
        assert 0 < len(told) < 20
        assert "AAAAAAAA" not in server.output
        assert MAX_ADDRESSES < 10_000
    finally:
        server.close()


def test_what_lasts_is_bounded_by_the_login() -> None:
    """The list of those that are held to it."""
    assert set(LASTING) < set(ATTACKS)
