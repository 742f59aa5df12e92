"""Settings where the queue is used, over both clients: the server makes what is declared, what differs is said."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import minibroker
from minibroker.contract.settings import default_settings
from support.broker import BrokerServer

Connect = Callable[..., Any]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[BrokerServer]:
    """A broker of this test's own, to be restarted, that takes two queues."""
    started = BrokerServer(tmp_path / "data", "--max-queues", "2")
    yield started
    started.close()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of the client about declarations."""
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("the queue")]


async def test_a_declared_queue_is_there_before_its_first_publish(
    broker: Any, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    queue = broker.queue(
        f"first-publish-{request.node.callspec.id}", max_attempts=3, durability="lazy"
    )
    confirm = await queue.publish(b"first")
    assert confirm.durability == "lazy", "it was made with its settings, not with defaults"
    expected = default_settings() | {"max_attempts": 3, "durability": "lazy"}
    assert await queue.settings() == await queue.declared() == expected
    assert queue.differs == {}
    assert warnings(caplog) == []


async def test_a_declared_queue_is_there_before_its_first_consumer(
    broker: Any, request: pytest.FixtureRequest
) -> None:
    queue = broker.queue(f"first-consumer-{request.node.callspec.id}", lease_ms=77_000)
    async with queue.consume():
        assert (await queue.settings())["lease_ms"] == 77_000


async def test_declared_makes_a_queue_without_settings_too(queue: Any) -> None:
    assert await queue.declared() == default_settings()
    assert await queue.settings() == default_settings()


async def test_what_differs_is_said_once_and_changes_nothing(
    connect: Connect, own: BrokerServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(own.url) as broker:
        await broker.queue("emails").set(max_attempts=9)
    async with connect(own.url) as broker:
        emails = broker.queue("emails", max_attempts=3, durability="sync")
        await emails.publish(b"body")
        assert emails.differs == {"max_attempts": (3, 9)}
        with pytest.raises(
            minibroker.SettingsDiffer, match="max_attempts is 9 and not 3"
        ) as caught:
            await emails.declared()
        assert caught.value.differs == emails.differs
        assert (await emails.settings())["max_attempts"] == 9
        await asyncio.to_thread(own.restart)
        await emails.publish(b"body")
        await broker.ping()
    assert warnings(caplog) == [
        "the queue emails stays as it is: max_attempts is 9, this program declares 3 "
        "(overwrite=True or `minibroker queue set` would change it)"
    ]


async def test_overwrite_changes_what_differs(
    queue: Any, broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.set(max_attempts=9, lease_ms=5_000)
    again = broker.queue(queue.name, overwrite=True, max_attempts=3)
    settings = await again.declared()
    assert (settings["max_attempts"], settings["lease_ms"]) == (3, 5_000)
    assert again.differs == {}
    assert warnings(caplog) == []


async def test_of_two_programs_that_race_one_is_told(connect: Connect, own: BrokerServer) -> None:
    async with connect(own.url) as one, connect(own.url) as other:
        queues = [one.queue("emails", max_attempts=3), other.queue("emails", max_attempts=4)]
        await asyncio.gather(*[queue.publish(b"body") for queue in queues])
        made = (await queues[0].settings())["max_attempts"]
        told = [queue.differs for queue in queues if queue.differs]
        assert told == [{"max_attempts": (7 - int(made), made)}]


async def test_a_broker_that_lost_everything_gets_the_queue_again_as_declared(
    connect: Connect, own: BrokerServer
) -> None:
    async with connect(own.url) as broker:
        emails = broker.queue("emails", durability="lazy")
        await emails.publish(b"body")
        own.kill()
        shutil.rmtree(own.data_dir)
        await asyncio.to_thread(own.restart)
        await broker.ping()
        assert (await emails.publish(b"body")).durability == "lazy"


async def test_a_lazy_client_declares_at_its_first_connection(
    connect: Connect, own: BrokerServer
) -> None:
    """A broker at module level: nothing is asked, nor is anybody there to be asked, before the first call."""
    own.stop()
    async with connect(own.url, lazy=True) as broker:
        emails = broker.queue("emails", max_attempts=3)
        late = asyncio.create_task(emails.publish(b"body"))
        await asyncio.to_thread(own.restart)
        await late
        assert (await emails.settings())["max_attempts"] == 3


async def test_bad_settings_raise_in_the_caller(broker: Any) -> None:
    for settings, says in (
        ({"colour": 1}, "unknown setting 'colour'"),
        ({"max_attempts": 0}, "max_attempts is 0"),
        ({"lease_ms": 1.5}, "lease_ms is 1.5"),
        ({"durability": "never"}, "one of sync, lazy, memory"),
    ):
        with pytest.raises(minibroker.BadValue, match=says):
            broker.queue("never-made", **settings)
    with pytest.raises(minibroker.UnknownQueue):
        await broker.queue("never-made").settings()


async def test_two_parts_of_a_program_may_not_say_different_things(broker: Any, queue: Any) -> None:
    broker.queue(queue.name, max_attempts=3)
    broker.queue(queue.name, max_attempts=3, lease_ms=5_000)
    with pytest.raises(minibroker.BadValue, match="max_attempts=3 and with max_attempts=4"):
        broker.queue(queue.name, max_attempts=4)
    assert (await queue.settings())["max_attempts"] == 3


async def test_what_is_refused_is_a_warning_and_the_queue_says_why(
    connect: Connect, own: BrokerServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(own.url) as broker:
        await broker.queue("one").publish(b"body")
        await broker.queue("two").publish(b"body")
        other = broker.queue("other", max_attempts=3)
        with pytest.raises(minibroker.LimitReached):
            await other.publish(b"body")
        with pytest.raises(minibroker.LimitReached):
            await other.declared()
    (said,) = warnings(caplog)
    assert said.startswith("the queue other was not declared: this server has 2 queues")


async def test_a_message_has_its_own_attempts_and_lease(broker: Any, queue: Any) -> None:
    await queue.publish(b"once", max_attempts=1)
    await queue.publish_many([b"long", b"longer"], lease=3_600, max_attempts=7)
    shown = [message.info for message in await queue.peek()]
    terms = [(info.get("max_attempts"), info.get("lease_ms")) for info in shown]
    assert terms == [(1, None), (7, 3_600_000), (7, 3_600_000)]
    (once,) = await queue.receive()
    await once.nack(ValueError("no"), confirmed=True)
    (dead,) = await broker.queue(queue.name + ".dlq").peek()
    assert (dead.raw, dead.info["max_attempts"]) == (b"once", 1)


@pytest.mark.parametrize(
    ("terms", "error"),
    [
        ({"max_attempts": 0}, minibroker.BadValue),
        ({"max_attempts": 1_001}, minibroker.BadValue),
        ({"max_attempts": "3"}, TypeError),
        ({"max_attempts": True}, TypeError),
        ({"lease": 0}, minibroker.BadValue),
        ({"lease": 43_201}, minibroker.BadValue),
        ({"lease": "1m"}, TypeError),
    ],
)
async def test_terms_that_cannot_be_are_refused_before_anything_is_sent(
    queue: Any, terms: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await queue.publish(b"body", **terms)
    with pytest.raises(error):
        await queue.publish_many([b"body"], **terms)
    with pytest.raises(minibroker.UnknownQueue):
        await queue.settings()
