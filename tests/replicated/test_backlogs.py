"""A backlog larger than memory, in a stream: it leaves, and comes back from the spool, or else the stream."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from cluster_three_nodes import leader_of

import minibroker
from support.broker import BrokerServer, StartBroker
from support.nats_nodes import Nodes
from support.processes import look_until

NewStream = Callable[[], str]
MIB = 1024 * 1024
LIMIT = ("--memory-limit", str(128 * MIB))  # a quarter of it is for messages
KEPT, BODY_BYTES = 120_000, 1_000
GROWN_BYTES = 80 * MIB  # that a broker takes for all of these at most; they are 120 MB


def resident_bytes(server: BrokerServer) -> int:
    """Return the resident memory of the broker."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096


def body(number: int) -> bytes:
    """Return the body of one message of the backlog."""
    return b"%08d" % number + b"x" * (BODY_BYTES - 8)


def spools(server: BrokerServer) -> list[Path]:
    """Return the spools in the directory of a broker."""
    return sorted(server.data_dir.glob("spool-*"))


async def pile_up(server: BrokerServer) -> None:
    async with minibroker.connect(server.url) as broker:
        for first in range(0, KEPT, 100):
            await broker.queue("kept").publish_many(map(body, range(first, first + 100)))


async def drain(server: BrokerServer, numbers: range) -> None:
    """Consume these, each once and in order."""
    async with minibroker.connect(server.url) as broker:
        left: list[minibroker.Message] = []
        for first in range(numbers.start, numbers.stop, 500):
            want = min(500, numbers.stop - first)
            while len(left) < want:
                left += await broker.queue("kept").receive(want - len(left), wait=30)
            assert [each.body for each in left] == list(map(body, range(first, first + want)))
            for each in left:
                await each.ack()
            left = []


async def test_it_leaves_memory_and_comes_back_out_of_the_spool(
    start_broker: StartBroker, new_stream: NewStream
) -> None:
    server = start_broker("--log", new_stream(), *LIMIT)
    empty_bytes = resident_bytes(server)
    await pile_up(server)
    assert resident_bytes(server) - empty_bytes < GROWN_BYTES
    (spool,) = spools(server)
    assert sum(file.stat().st_size for file in spool.iterdir()) > KEPT * BODY_BYTES
    await drain(server, range(KEPT // 2))
    server.kill()
    server.restart()
    assert resident_bytes(server) - empty_bytes < GROWN_BYTES
    assert len(spools(server)) == 1, "that of the run before is there"
    assert spools(server) != [spool]
    await drain(server, range(KEPT // 2, KEPT))
    assert "spool_lacks" not in server.output
    server.stop()
    assert spools(server) == []


async def test_a_spool_that_is_deleted_meanwhile_is_fetched(
    start_broker: StartBroker, new_stream: NewStream
) -> None:
    server = start_broker("--log", new_stream(), *LIMIT)
    await pile_up(server)
    await drain(server, range(100))
    (spool,) = spools(server)
    shutil.rmtree(spool)
    await drain(server, range(100, KEPT))
    server.prints("spool_lacks")
    await pile_up(server)
    assert spools(server) == [spool], "it is made again"


async def test_who_stood_by_holds_it_as_places_and_hands_it_out(
    start_broker: StartBroker, new_stream: NewStream
) -> None:
    address = new_stream()
    first = start_broker("--log", address, *LIMIT)
    second = start_broker("--log", new_stream(), *LIMIT)
    empty_bytes = resident_bytes(second)
    second.kill()
    second.flags = ("--log", address, "--standby", *LIMIT)
    process = second.launch()
    second.prints("standing_by")
    await pile_up(first)
    await drain(first, range(1_000))
    first.kill()
    look_until(lambda: second.output.count("listening on") == 2, process, "a second start")
    assert resident_bytes(second) - empty_bytes < GROWN_BYTES
    await drain(second, range(1_000, KEPT))
    assert "spool_lacks" not in second.output


async def test_a_server_that_is_down_does_not_keep_what_is_fetched(
    start_broker: StartBroker, three_nodes: Nodes
) -> None:
    address = three_nodes.address("orders")
    server = start_broker("--log", address, *LIMIT)
    await pile_up(server)
    shutil.rmtree(spools(server)[0])
    leader = await leader_of(address)
    next(node for node in three_nodes.all if node.name != leader).kill()
    await drain(server, range(KEPT))
    server.prints("spool_lacks")
