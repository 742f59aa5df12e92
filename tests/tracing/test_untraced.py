"""Without a provider a client is the same as without the extra: other classes, and nothing imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import trace
from recorded import Recorded

import minibroker
import minibroker.sync
from minibroker.aio.queue import Queue
from minibroker.testing import MemoryBroker

ROUND_TRIP = """
import asyncio, sys
import minibroker, minibroker.sync, minibroker.worker
{imports}
async def main():
    async with minibroker.connect("memory://") as broker:
        queue = broker.queue("emails")
        await queue.publish(b"1")
        async with queue.consume() as messages:
            async for message in messages:
                async with message.process():
                    pass
                return type(queue), type(message), message.headers
queue, message, headers = asyncio.run(main())
assert queue.__name__ == "Queue" and message.__name__ == "Message" and headers == {{}}
print(*sorted(name for name in sys.modules if name.startswith("opentelemetry.")))
"""


def test_nothing_is_imported_where_the_program_did_not() -> None:
    code = ROUND_TRIP.format(imports="")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def test_an_api_without_a_provider_changes_nothing() -> None:
    code = ROUND_TRIP.format(imports="import opentelemetry.metrics, opentelemetry.trace")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "opentelemetry.trace" in ran.stdout
    assert "opentelemetry.sdk" not in ran.stdout


def test_asked_for_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import minibroker.sync\n"
        "try:\n"
        "    minibroker.sync.connect('memory://', tracing='parent')\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == (
        "tracing='parent' needs OpenTelemetry: pip install 'minibroker[otel]'"
    )


async def test_it_can_be_off_by_argument_and_by_variable(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with minibroker.connect("memory://", tracing="off") as broker:
        assert type(broker.queue("emails")) is Queue
    monkeypatch.setenv("MINIBROKER_TRACING", "off")
    with minibroker.sync.connect("memory://") as blocking:
        blocking.queue("emails").publish(b"1")
    assert recorded.exporter.get_finished_spans() == ()
    monkeypatch.setenv("MINIBROKER_TRACING", "perhaps")
    with pytest.raises(minibroker.BadValue, match="MINIBROKER_TRACING is 'perhaps'; it must be"):
        minibroker.connect("memory://")


async def test_a_provider_may_come_between_the_connection_and_its_queues(
    monkeypatch: pytest.MonkeyPatch, recorded: Recorded
) -> None:
    """A worker connects before the lifespan of its app, which may set one up."""
    provider = trace.get_tracer_provider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", None)
    async with MemoryBroker() as broker:
        await broker.queue("emails").publish(b"1")
        assert recorded.exporter.get_finished_spans() == ()
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        await broker.queue("emails").publish(b"2")
        for message in await broker.queue("emails").receive(2):
            async with message.process():
                pass
    assert recorded.one("publish emails")
    assert len(recorded.named("process emails")) == 2


async def test_metrics_alone_are_enough(
    monkeypatch: pytest.MonkeyPatch, recorded: Recorded
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    async with MemoryBroker() as broker:
        queue = broker.queue("emails")
        await queue.publish(b"1")
        (message,) = await queue.receive()
        async with message.process():
            pass
    assert message.headers == {}
    assert recorded.points("messaging.client.sent.messages") == {("publish", ""): 1}
    assert recorded.points("messaging.process.duration")["process", ""][0] == 1


def test_a_blocking_connection_has_few_enough_attributes() -> None:
    """Python 3.11 reads attributes the short way up to 29 of them; the 30th made a publish dearer by a percent."""
    with minibroker.sync.connect("memory://") as broker:
        assert len(vars(broker._driver)) < 30


async def test_a_lazy_connection_is_traced_too(recorded: Recorded) -> None:
    broker = minibroker.connect("memory://", lazy=True, tracing="parent")
    async with broker as connected:
        queue = connected.queue("emails")
        await queue.publish(b"1")
        (message,) = await queue.receive()
        async with message.process():
            pass
    assert recorded.one("process emails")
