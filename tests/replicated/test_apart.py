"""The leader of the stream is kept off the machine of the broker, where another server has all of it."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from sim_stream import NO_FAULTS, SERVERS, Connection, Faults, SimStream

from minibrokerd.replicated.apart import keep_apart
from minibrokerd.replicated.stream_address import here_and_elsewhere, parse


def connection(beside: str) -> Connection:
    """Return one to a stream that s1 leads."""
    stream = SimStream(Random(1), NO_FAULTS)
    assert stream.leader == SERVERS[0]
    made = stream.connect(lambda: asyncio.sleep(0))
    made.beside = beside
    return made


@pytest.mark.parametrize(
    ("beside", "behind", "leads"),
    [
        ("s1", (), ("s2", "s3")),
        ("s1", ("s2",), ("s3",)),  # who leads is to have all of it
        ("s1", ("s2", "s3"), ("s1",)),
        ("s2", (), ("s1",)),  # it is apart
        ("", (), ("s1",)),  # nobody knows
        ("else", (), ("s1",)),
    ],
)
async def test_the_leader_moves_where_it_is_on_this_machine(
    beside: str, behind: tuple[str, ...], leads: tuple[str, ...]
) -> None:
    found = connection(beside)
    stream = found._stream
    stream.send([b"x"], 0, 1, is_epoch=False)
    for _ in range(20):
        stream.tick()
    for name in SERVERS:
        stream.has[name] = 0 if name in behind else stream.last
    await keep_apart(found)
    assert stream.leader in leads


@pytest.mark.parametrize(("another", "leads"), [("s2", "s3"), ("s3", "s2")])
async def test_it_moves_where_no_broker_is(another: str, leads: str) -> None:
    """Then whoever takes over next finds it apart, and nothing stalls."""
    found = connection("s1")
    await keep_apart(found, another)
    assert found._stream.leader == leads
    only = connection("s1")
    only._stream.has["s3" if another == "s2" else "s2"] = -1
    await keep_apart(only, another)
    assert only._stream.leader in (another, leads)


async def test_who_gets_no_answer_tries_it_another_time() -> None:
    found = connection("s1")
    found._stream.faults = Faults(away=1.0)
    await keep_apart(found)
    assert found._stream.leader == "s1"


def test_the_servers_of_this_machine_are_found_by_their_addresses() -> None:
    """192.0.2.0/24 is nobody's, anywhere."""
    here, elsewhere = here_and_elsewhere(
        ["192.0.2.1:4222", "127.0.0.1:1", "[::1]:2", "nobody.invalid:4222"]
    )
    assert "127.0.0.1:1" in here
    assert {"192.0.2.1:4222", "nobody.invalid:4222"} <= set(elsewhere)


def test_an_address_says_which_server_is_beside_the_broker() -> None:
    assert parse("nats://a,b,c/orders").beside == ""
    found = parse("nats://a,b,c/orders?replicas=1&beside=n1")
    assert (found.beside, found.replicas) == ("n1", 1)
    with pytest.raises(ValueError, match="unknown option 'besides': there are replicas, beside, "):
        parse("nats://a/orders?besides=n1")
