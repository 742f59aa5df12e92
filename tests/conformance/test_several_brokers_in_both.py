"""A url with several servers, in both clients: who stands by sends on, who is away is passed over."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

import minibroker
from minibroker.session.address import Place
from minibrokerd.net import listening
from minibrokerd.net.referring import Referrer
from minibrokerd.net.tls import Tls, TlsFiles
from support.broker import BrokerServer, StartBroker
from support.certificates import Authority

Connect = Callable[..., Any]


class StandBy:
    """A port that is answered as by a broker that stands by."""

    def __init__(self, tls: Tls | None = None) -> None:
        self.active = ""
        self.asked = 0
        self._referrer = Referrer(asyncio.get_running_loop(), tls, self._whom)
        self.sockets: list[socket.socket] = []

    async def open(self) -> None:
        """Listen on any free port."""
        self.sockets = listening.bind("127.0.0.1", 0)
        await self._referrer.open(self.sockets)

    def _whom(self) -> str:
        self.asked += 1
        return self.active

    @property
    def place(self) -> str:
        """Its host:port."""
        return listening.show(*self.sockets[0].getsockname()[:2])

    def close(self) -> None:
        """Be gone."""
        self._referrer.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
async def standing() -> AsyncIterator[StandBy]:
    """One that knows of nobody, at first."""
    stand_by = StandBy()
    await stand_by.open()
    yield stand_by
    stand_by.close()


def place_of(server: BrokerServer) -> str:
    return f"{server.host}:{server.port}"


async def test_who_stands_by_sends_to_the_one_that_leads(
    connect: Connect, standing: StandBy, start_broker: StartBroker
) -> None:
    """Also to one that the url does not name."""
    leader = start_broker()
    standing.active = place_of(leader)
    async with connect(f"minibroker://{standing.place}", timeout=10) as broker:
        await broker.queue("q").publish("a")
    assert standing.asked == 1


async def test_who_knows_nobody_is_passed_over(
    connect: Connect, standing: StandBy, start_broker: StartBroker, free_port: int
) -> None:
    leader = start_broker()
    url = f"minibroker://127.0.0.1:{free_port},{standing.place},{place_of(leader)}"
    async with connect(url, timeout=10) as broker:
        await broker.queue("q").publish("a")
    assert standing.asked == 1


async def test_a_takeover_is_as_a_restart(
    connect: Connect, standing: StandBy, start_broker: StartBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """What was begun is acked at the other broker, and who leads is remembered."""
    caplog.set_level(logging.INFO, "minibroker")
    leader = start_broker()
    standing.active = place_of(leader)
    async with connect(f"minibroker://{standing.place},{place_of(leader)}", timeout=10) as broker:
        queue = broker.queue("q")
        await queue.publish("a")
        (message,) = await queue.receive()
        await asyncio.to_thread(leader.kill)
        await asyncio.to_thread(leader.restart)
        await message.ack()
        await queue.publish("b")
        assert [each.body for each in await queue.receive(2)] == ["b"]
    assert f"connected to {place_of(leader)} again" in caplog.text
    assert standing.asked < 20, "it was asked without a pause"


async def test_nobody_who_leads_is_said_in_time(connect: Connect, standing: StandBy) -> None:
    url = f"minibroker://{standing.place}"
    with pytest.raises(minibroker.ConnectionLost, match="stands by and does not lead"):
        async with connect(url, connect_timeout=0.3):
            pass


async def test_each_server_shows_a_certificate_of_its_own_host(
    connect: Connect, start_broker: StartBroker, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "ca")
    cert, key = authority.sign("named", "DNS:localhost")
    leader = start_broker("--tls-cert", str(cert), "--tls-key", str(key))
    standing = StandBy(Tls(TlsFiles(*authority.sign("here", "IP:127.0.0.1"))))
    await standing.open()
    try:
        url = f"minibrokers://{standing.place},localhost:{leader.port}?ca={authority.cert}"
        async with connect(url, timeout=10) as broker:
            await broker.queue("q").publish("a")
        assert standing.asked == 1
    finally:
        standing.close()


async def answer_to(place: str, said: bytes) -> bytes:
    host, _, port = place.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(said)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def test_what_else_comes_to_a_broker_that_stands_by(standing: StandBy) -> None:
    standing.active = "b:7273"
    answer = await answer_to(standing.place, b"\0\0\0\2\x94\0")
    header = msgpack.unpackb(msgpack.unpackb(answer[4:])[0])
    assert (header["code"], header["retryable"], header["leader"]) == (
        "not_leading",
        True,
        "b:7273",
    )
    assert (await answer_to(standing.place, b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    long = await answer_to(standing.place, b"\0\1\0\0\x94")
    assert b"not_leading" in long, "it waits for the rest of a frame that is too long"


async def test_who_comes_while_it_takes_over_waits_in_the_kernel(standing: StandBy) -> None:
    host, _, port = standing.place.rpartition(":")
    place: Place = (host, int(port))
    standing._referrer.close()
    reader, writer = await asyncio.open_connection(*place)

    class Leader(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(b"welcome")
            transport.close()

    servers = await listening.listen(standing.sockets, Leader, asyncio.get_running_loop())
    async with asyncio.timeout(10):
        assert await reader.read() == b"welcome"
    writer.close()
    for server in servers:
        server.close()
