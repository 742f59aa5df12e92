"""`minibroker bench` against a real server, with few messages: what it counts, and what it leaves behind."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
from typing_commands import CLEAN, output, refusal, typed, values

import minibroker
from minibrokerd.process import exits
from support.broker import COMMAND, BrokerServer

Answer = TypeVar("Answer")
PERCENTILES = ["count", "p50", "p90", "p99", "p99.9", "max"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerServer]:
    """One server for the tests that do it no harm; each leaves it without queues."""
    server = BrokerServer(tmp_path_factory.mktemp("bench") / "data")
    yield server
    server.close()


def ask(server: BrokerServer, question: Callable[[minibroker.Broker], Awaitable[Answer]]) -> Answer:
    """Ask a server something without a command, which would take a process of its own."""

    async def connected() -> Answer:
        async with minibroker.connect(server.url) as broker:
            return await question(broker)

    return asyncio.run(connected())


def queues(server: BrokerServer) -> dict[str, Any]:
    """Return the counters of all queues, by name."""
    return ask(server, lambda broker: broker.stats())["queues"]


def result(server: BrokerServer, *words: str) -> Any:
    """Return what `bench --json` printed."""
    (value,) = values(server, "bench", *words)
    return value


def test_a_closed_loop_counts_every_message_once(server: BrokerServer) -> None:
    """The object for programs has parameters, counts, rates, percentiles and versions."""
    made = result(server, "--count", "500", "--window", "8", "--keys", "3")
    assert (made["loop"], made["plan"]["window"], made["plan"]["keys"]) == ("closed", 8, 3)
    counts = made["messages"]
    assert counts["published"] == counts["consumed"] == counts["acked"] == 500
    assert (counts["missing"], counts["duplicates"], counts["stored"]) == (0, 0, 0)
    assert list(made["latency_ms"]["publish"]) == PERCENTILES
    assert made["latency_ms"]["end_to_end"]["count"] == 500
    assert made["latency_ms"]["publish"]["p50"] <= made["latency_ms"]["publish"]["max"]
    assert made["rates"]["acked"]["per_second"] > 0
    assert made["server"]["epoch"] == 1
    assert made["versions"]["protocol"] == 1
    assert made["versions"]["server"] == made["versions"]["minibroker"]
    assert queues(server) == {}


def test_an_open_loop_keeps_its_rate(server: BrokerServer) -> None:
    """100 messages at 500 a second are not sent within less than the time that they are planned for."""
    flags = ("--rate", "500", "--duration", "0.2", "--batch", "5", "--body-type", "json")
    made = result(server, *flags)
    assert (made["loop"], made["messages"]["published"]) == ("open", 100)
    assert made["rates"]["offered"]["per_second"] == 500
    assert made["rates"]["sent"]["per_second"] <= 500
    assert made["rates"]["published"]["seconds"] >= 0.19
    assert made["latency_ms"]["publish"]["count"] == 20


def test_falling_behind_is_told(server: BrokerServer) -> None:
    """No waiting for one publish after the other makes a million a second; all latencies say so."""
    flags = ("--rate", "1e6", "--count", "300", "--producers", "1", "--window", "1")
    made = result(server, *flags)
    assert "fell behind: 1,000,000 messages/s offered" in made["warnings"][0]
    assert made["rates"]["sent"]["per_second"] < 1e6
    # From the planned times: the last call waited for almost all the others.
    took_ms = made["rates"]["published"]["seconds"] * 1_000
    assert made["latency_ms"]["publish"]["max"] > 0.9 * took_ms


def test_people_get_tables(server: BrokerServer) -> None:
    """Without consumers there is no end to end, and the server is asked what it has."""
    lines = output(server, "bench", "--count", "50", "--consumers", "0", "--batch", "20")
    assert "closed loop" in lines[0]
    assert lines[3].split()[:2] == ["published", "50"]
    assert not any(line.startswith("end to end") for line in lines)
    assert lines[-1] == "50 confirmed, 50 found in the queue"
    assert queues(server) == {}


def test_a_queue_that_exists_is_refused(server: BrokerServer) -> None:
    """It would be deleted; and messages of others would be ended."""
    ask(server, lambda broker: broker.queue("mine").publish(b"hello"))
    flags = ("--queue", "mine", "--count", "1")
    assert "exists already" in refusal(server, exits.REFUSED, "bench", *flags)
    text = refusal(server, exits.REFUSED, "bench", *flags, "--keep")
    assert "has messages or consumers" in text
    assert queues(server)["mine"]["ready"] == 1
    ask(server, lambda broker: broker.queue("mine").delete(force=True))


def test_an_empty_queue_can_be_used_and_kept(server: BrokerServer) -> None:
    """With the durability that it has."""
    ask(server, lambda broker: broker.queue("mine").set(durability="memory"))
    made = result(server, "--queue", "mine", "--keep", "--count", "20")
    assert (made["plan"]["durability"], made["messages"]["acked"]) == ("memory", 20)
    assert list(queues(server)) == ["mine"]
    ask(server, lambda broker: broker.queue("mine").delete())


def test_a_body_must_have_room_for_its_number() -> None:
    """Said before anything is connected."""
    done = typed("bench", "--body-size", "90", "--body-type", "json")
    assert (done.returncode, "--body-size" in done.stderr) == (exits.USAGE, True)


class Running:
    """A bench that is in the middle of it: the server has confirmed some of its messages."""

    def __init__(self, server: BrokerServer, *words: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "bench", "--duration", "60", "--queue", "q", *words, "--url", server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=CLEAN,
        )
        ask(server, self._in_the_middle)

    async def _in_the_middle(self, broker: minibroker.Broker) -> None:
        while not (await broker.stats())["queues"].get("q", {}).get("acked"):
            assert self.process.poll() is None, self.process.communicate()

    def end(self) -> tuple[int, str]:
        """Return exit code and standard error; no results were printed."""
        printed, errors = self.process.communicate(timeout=30)
        assert printed == ""
        return self.process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_queue(server: BrokerServer, number: int) -> None:
    """Though its messages are under way."""
    running = Running(server)
    running.process.send_signal(number)
    assert running.end() == (exits.INTERRUPTED, "")
    assert queues(server) == {}


def test_a_server_that_dies_is_one_message(broker_server: BrokerServer) -> None:
    """It names the queue that nobody could delete."""
    running = Running(broker_server, "--timeout", "0.5")
    broker_server.kill()
    code, errors = running.end()
    assert code == exits.UNREACHABLE
    assert len(errors.splitlines()) == 1
    assert "went away during the bench, and queue q is left there" in errors
