"""protocol.md 4.3, 4.4: what a client does when its broker dies, restarts, hangs, or its answers get lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import minibroker
from minibroker.contract import limits
from minibroker.session.connecting import Connecting
from minibroker.session.events import Again, Effect
from minibroker.session.timers import Timers
from support.broker import BrokerServer
from support.processes import DEADLINE_S
from support.relay import Relay

FORKING = Path(__file__).with_name("forking.py")


async def bodies(url: str, name: str) -> list[bytes]:
    """Return the raw bodies that lie in a queue, as a client of its own sees them."""
    async with minibroker.connect(url) as broker:
        return [peeked.raw for peeked in await broker.queue(name).peek()]


async def test_a_publish_waits_for_the_restart(broker_server: BrokerServer) -> None:
    """Called while the broker is dead, it returns when the broker is back; nothing is published twice."""
    async with minibroker.connect(broker_server.url) as broker:
        queue: minibroker.Queue[bytes] = broker.queue("jobs")
        await queue.publish(b"before")
        broker_server.kill()
        waiting = asyncio.ensure_future(queue.publish(b"meanwhile", timeout=DEADLINE_S))
        many = asyncio.ensure_future(queue.publish_many([b"a", b"b"], timeout=DEADLINE_S))
        await asyncio.to_thread(broker_server.restart)
        confirm, confirms = await waiting, await many
        assert len({confirm.id, *(each.id for each in confirms)}) == 3
    assert sorted(await bodies(broker_server.url, "jobs")) == [b"a", b"b", b"before", b"meanwhile"]


async def test_a_publish_that_was_never_written_says_so(broker_server: BrokerServer) -> None:
    """At its deadline it raises NotSent, and it is not stored later either."""
    async with minibroker.connect(broker_server.url) as broker:
        queue: minibroker.Queue[bytes] = broker.queue("jobs")
        await queue.publish(b"before")
        broker_server.kill()
        with pytest.raises(minibroker.ConnectionLost):  # from here on the client knows it
            await queue.purge()
        with pytest.raises(minibroker.NotSent):
            await queue.publish(b"never", timeout=0.1)
        await asyncio.to_thread(broker_server.restart)
        await queue.publish(b"after")
    assert await bodies(broker_server.url, "jobs") == [b"before", b"after"]


async def test_a_publish_that_may_be_stored_says_so(broker_server: BrokerServer) -> None:
    """A broker that hangs has the frame and does not answer: OutcomeUnknown; here it is stored in the end."""
    async with minibroker.connect(broker_server.url) as broker:
        queue: minibroker.Queue[bytes] = broker.queue("jobs")
        await queue.publish(b"before")
        os.kill(broker_server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(minibroker.OutcomeUnknown):
                await queue.publish(b"perhaps", timeout=0.1)
        finally:
            os.kill(broker_server.pid, signal.SIGCONT)
        await queue.publish(b"after")
    assert await bodies(broker_server.url, "jobs") == [b"before", b"perhaps", b"after"]


@pytest.mark.parametrize("killed", [False, True], ids=["cut", "killed"])
async def test_a_publish_frame_that_is_sent_twice_is_stored_once(
    broker_server: BrokerServer, killed: bool
) -> None:
    """Its confirm got lost: the client sends the frame again and gets the answer that was given first."""
    async with (
        Relay(broker_server.port) as relay,
        minibroker.connect(relay.url, timeout=DEADLINE_S) as broker,
    ):
        queue: minibroker.Queue[bytes] = broker.queue("jobs")
        first = await queue.publish(b"before")
        relay.swallowing = True
        waiting = asyncio.ensure_future(queue.publish(b"once"))
        await relay.swallowed.wait()
        assert not waiting.done()
        if killed:
            broker_server.kill()
            await asyncio.to_thread(broker_server.restart)
        relay.cut()
        confirm = await waiting
        # A restart skips what is left of the reserved sequences, a frame stored twice would be of the new ones.
        assert confirm.sequence == first.sequence + 1
    assert await bodies(broker_server.url, "jobs") == [b"before", b"once"]


@pytest.mark.parametrize("killed", [False, True], ids=["cut", "killed"])
async def test_a_settlement_whose_answer_got_lost_is_judged_once(
    broker_server: BrokerServer, killed: bool
) -> None:
    """An ack that was applied is confirmed when its frame comes again; it is not called lost."""
    async with (
        Relay(broker_server.port) as relay,
        minibroker.connect(relay.url, timeout=DEADLINE_S) as broker,
    ):
        queue: minibroker.Queue[bytes] = broker.queue("jobs")
        await queue.publish(b"once")
        (message,) = await queue.receive(wait=DEADLINE_S)
        relay.swallowing = True
        settling = asyncio.ensure_future(message.ack(confirmed=True))
        await relay.swallowed.wait()
        if killed:
            broker_server.kill()
            await asyncio.to_thread(broker_server.restart)
        relay.cut()
        await settling
        assert not message.lost
    assert await bodies(broker_server.url, "jobs") == []


async def test_what_was_begun_is_settled_after_the_restart(broker_server: BrokerServer) -> None:
    """A handler that runs over the death of the broker: its token still counts, and nobody gets the message."""
    async with minibroker.connect(broker_server.url, timeout=DEADLINE_S) as broker:
        queue: minibroker.Queue[bytes] = broker.queue("jobs")
        await queue.publish(b"long")
        async with queue.consume() as messages:
            async for message in messages:
                broker_server.kill()
                await asyncio.to_thread(broker_server.restart)
                await message.ack(confirmed=True)
                assert not message.lost
                break
        counters = (await queue.stats())["queues"]["jobs"]
        assert (counters["delivered"], counters["acked"]) == (0, 1), "as counted since the restart"
    assert await bodies(broker_server.url, "jobs") == []


def test_a_pause_between_two_tries_leaves_nearly_all_of_the_servers_wait() -> None:
    """A later RESUME finds that what was begun has been handed out; noticing and connecting take time, too."""
    told: list[Effect] = []
    connecting = Connecting(
        Timers(), lambda low, high: high, 10_000, told.append, lambda error, now_ms: True
    )
    for now_ms in range(0, 100_000, 10_000):
        connecting.start(now_ms)
        connecting.ended(ConnectionRefusedError(), now_ms)
    pauses_ms = [effect.delay_ms for effect in told if isinstance(effect, Again)]
    assert len(pauses_ms) == 10
    assert max(pauses_ms) <= limits.RECONNECT_PAUSE_MS
    assert limits.RECONNECT_PAUSE_MS <= limits.RESUME_WAIT_MS // 10


# A start that takes longer than the wait for resumes, as that of a large broker does. The wait is long enough for
# a client to connect on a busy machine.
SLOW_START = """
import gc, threading
from minibroker.contract import limits
from minibroker.session.connecting import Connecting
from minibroker.session.events import Again, Effect
from minibroker.session.timers import Timers
from minibrokerd.__main__ import main
limits.RESUME_WAIT_MS = 4_000
freeze = gc.freeze
gc.freeze = lambda: (threading.Event().wait(4.2), freeze())
main()
"""


async def test_the_wait_for_resumes_counts_from_when_clients_can_come(
    broker_server: BrokerServer,
) -> None:
    """However long the start took before the port opened."""
    async with minibroker.connect(broker_server.url) as broker:
        await broker.queue("jobs").publish_many([b"begun", b"one"])
        assert await broker.queue("jobs").receive()
        broker_server.kill()
    broker_server.command = (sys.executable, "-c", SLOW_START)
    await asyncio.to_thread(broker_server.restart)
    async with minibroker.connect(broker_server.url) as broker:
        queue: minibroker.Queue[bytes] = broker.queue("jobs")
        receiving = asyncio.ensure_future(queue.receive(wait=DEADLINE_S))
        await broker.ping()  # answered behind the receive
        assert (await queue.stats())["queues"]["jobs"]["delivered"] == 0
        (message,) = await receiving
        await message.ack(confirmed=True)


def test_a_forked_child_does_not_use_its_parents_session(broker_server: BrokerServer) -> None:
    """Its calls on the old connection are refused, and its own connection is another session."""
    command = [sys.executable, str(FORKING), broker_server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    said = dict(line.split() for line in done.stdout.splitlines())
    assert said["child_on_old"] == "Closed"
    assert said["child_session"] != said["parent_session"] == said["parent_session_later"]
    assert asyncio.run(bodies(broker_server.url, "jobs")) == [b"parent", b"child", b"parent again"]
