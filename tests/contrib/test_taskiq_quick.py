"""Acks of Taskiq's tasks: those of quick ones share frames, all others are written when they are said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from taskiq import AckableMessage
from taskiq.receiver import Receiver

import minibroker
from minibroker.aio.link import Link
from minibroker.contrib import taskiq as on_taskiq
from minibroker.contrib.taskiq import MinibrokerBroker
from support.broker import BrokerServer

COUNT = 100


class Frames:
    """How many frames were written, and a clock of its own."""

    def __init__(self) -> None:
        self.written = 0
        self.now = 1_000.0

    def clock(self) -> float:
        return self.now


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> Frames:
    """Counts the frames of all links; no ack is written by the time that has passed."""
    made, write = Frames(), Link.write

    def counted(link: Link, frames: list[bytes]) -> None:
        made.written += len(frames)
        write(link, frames)

    monkeypatch.setattr(Link, "write", counted)
    monkeypatch.setattr(on_taskiq, "QUICK_S", 3_600.0)
    return made


@pytest.fixture
async def broker(broker_server: BrokerServer, frames: Frames) -> AsyncIterator[MinibrokerBroker]:
    """Minibroker for Taskiq with `COUNT` messages, by the clock of `frames`."""
    made = MinibrokerBroker(broker_server.url)
    made.is_worker_process = True

    @made.task(task_name="work")
    async def work(number: int) -> None: ...

    await asyncio.gather(*(work.kiq(number) for number in range(COUNT)))
    made._client._driver.clock = frames.clock
    yield made
    await made.shutdown()


async def run(broker: MinibrokerBroker, ackable: AckableMessage, label: str = "") -> None:
    """Have Taskiq's receiver run one message, with the label `ack_type`."""
    receiver = Receiver(broker, max_async_tasks=4, run_startup=False)
    if label:
        receiver._get_ack_time = lambda message: label  # type: ignore[method-assign,assignment,return-value]
    await receiver.callback(ackable)


async def acked(url: str) -> int:
    async with minibroker.connect(url) as client:
        return int((await client.stats())["queues"]["taskiq"]["acked"])


async def test_acks_of_quick_tasks_share_frames(
    broker: MinibrokerBroker, broker_server: BrokerServer, frames: Frames
) -> None:
    """Half of what a worker has in hand at most; the last one, which none follows, takes the others along."""
    listening = broker.listen()
    ackables = [await anext(listening) for _ in range(COUNT)]
    before = frames.written
    for ackable in ackables[:-1]:
        await run(broker, ackable)
    assert 0 < frames.written - before < 5
    await run(broker, ackables[-1])
    assert frames.written - before < 10
    await broker._client.ping()
    assert await acked(broker_server.url) == COUNT
    await listening.aclose()


@pytest.mark.parametrize("why", ["it took longer", "when_received", "when_executed", "a failure"])
async def test_others_are_written_at_once(
    why: str, broker: MinibrokerBroker, frames: Frames
) -> None:
    """A kill must not run it again: it took time, or was acked before it ran, or is to be kept."""
    listening = broker.listen()
    ackable, *_ = [await anext(listening) for _ in range(10)]
    settled = broker._client._driver.session.settlements_of("taskiq")

    @broker.task(task_name="work")
    async def work(number: int) -> None:
        frames.now += 7_200.0 if why == "it took longer" else 0.0
        if why == "a failure":
            raise ValueError("no")
        if why == "when_received":
            assert not settled.acks
            assert frames.written > before

    before = frames.written
    await run(broker, ackable, why if why.startswith("when") else "")
    assert ackable.data.message.state == minibroker.session.settlements.ENDED  # type: ignore[union-attr]
    assert not settled.acks
    assert not settled.others
    assert frames.written > before
    await listening.aclose()


@pytest.mark.parametrize("how", ["the listener ends", "the broker is closed", "time passes"])
async def test_what_waits_leaves(
    how: str,
    broker: MinibrokerBroker,
    broker_server: BrokerServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No ack is forgotten, and each is counted once."""
    if how == "time passes":
        monkeypatch.setattr(on_taskiq, "QUICK_S", 0.001)
    listening = broker.listen()
    ackables = [await anext(listening) for _ in range(10)]
    await run(broker, ackables[0])
    assert not broker._client._driver.session.settlements_of("taskiq").acks
    await ackables[0].ack()  # type: ignore[misc]
    if how == "the listener ends":
        await listening.aclose()
        await broker._client.ping()
    elif how == "the broker is closed":
        await broker.shutdown()
    async with asyncio.timeout(60):
        while (count := await acked(broker_server.url)) == 0:
            pass  # each look is a connection of its own: the loop turns
    assert count == 1
    await listening.aclose()
