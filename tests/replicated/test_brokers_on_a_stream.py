"""Real brokers on a real stream: what was confirmed stays, one leads, and errors say what to do."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import nats
import pytest

import minibroker.sync
from minibrokerd.log.format import Kind, decode_header
from minibrokerd.process import exits
from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.stream_address import parse
from support.broker import BrokerServer, StartBroker
from support.nats_nodes import Nodes, free_ports
from support.processes import look_until
from support.warm import COMMAND

NewStream = Callable[[], str]


def publish(server: BrokerServer, *bodies: str) -> list[str]:
    """Publish, and return the durabilities of the confirms."""
    with minibroker.sync.connect(server.url) as broker:
        queue = broker.queue("orders")
        return [queue.publish(body).durability for body in bodies]


def waiting(server: BrokerServer) -> list[object]:
    """Return the bodies that wait."""
    with minibroker.sync.connect(server.url) as broker:
        return [message.body for message in broker.queue("orders").peek()]


def asked(url: str) -> tuple[int, str]:
    """Return how a page is answered; 0 while nobody listens."""
    try:
        answer = httpx.get(url, trust_env=False, timeout=30)
    except httpx.TransportError:
        return 0, ""
    return answer.status_code, answer.text


def test_what_was_confirmed_is_there_after_a_kill(
    start_broker: StartBroker, new_stream: NewStream
) -> None:
    server = start_broker("--log", new_stream())
    assert publish(server, "a", "b", "c") == ["replicated"] * 3
    server.kill()
    server.restart()
    assert waiting(server) == ["a", "b", "c"]
    assert "started    after a crash" in server.output
    server.restart()
    assert waiting(server) == ["a", "b", "c"]
    assert "started    after a clean stop" in server.output


def test_who_starts_last_leads_and_the_other_one_ends(
    start_broker: StartBroker, new_stream: NewStream
) -> None:
    address = new_stream()
    first = start_broker("--log", address)
    publish(first, "a")
    second = start_broker("--log", address)
    assert waiting(second) == ["a"]
    publish(second, "b")
    assert first.process.wait(timeout=60) == exits.DEPOSED
    first.prints("another broker leads the log")
    assert waiting(second) == ["a", "b"]


def test_who_stands_by_takes_over_when_the_other_one_dies(
    start_broker: StartBroker, new_stream: NewStream, tmp_path: Path
) -> None:
    address = new_stream()
    first = start_broker("--log", address)
    publish(first, "a")
    second = start_broker("--log", new_stream())
    second.kill()
    second.flags = ("--log", address, "--standby")
    process = second.launch()
    second.prints(f"active=127.0.0.1:{first.port}")
    assert publish(first, "b") == ["replicated"]
    assert first.running
    first.kill()
    look_until(lambda: second.output.count("listening on") == 2, process, "a second start")
    assert waiting(second) == ["a", "b"]
    publish(second, "c")
    times = asyncio.run(log_times(address))
    assert times == sorted(times), "log time went back"


def test_a_token_file_that_cannot_be_read_any_more_keeps_nobody_from_taking_over(
    start_broker: StartBroker, new_stream: NewStream
) -> None:
    """It would claim the log and end: what was read before holds, as where somebody leads."""
    address = new_stream()
    first = start_broker("--log", address)
    second = start_broker("--log", new_stream())
    second.kill()
    second.flags = ("--log", address, "--standby")
    process = second.launch()
    second.prints("standing_by")
    (second.data_dir / "tokens").write_text("no token at all\n")
    first.kill()
    look_until(lambda: second.output.count("listening on") == 2, process, "a second start")
    assert "tokens_refused" in second.output
    assert publish(second, "a") == ["replicated"]


async def log_times(address: str) -> list[int]:
    """Return the log times of the batches in a stream, oldest first."""
    stream = NatsStream(parse(address))
    await stream.open()
    try:
        headers = [decode_header(entry.body, 0) for entry in await stream.read(1, 2**20)]
    finally:
        await stream.close()
    return [header.now_ms for header in headers if header and header.kind is Kind.DATA]


def test_a_stop_ends_who_stands_by(start_broker: StartBroker, new_stream: NewStream) -> None:
    address = new_stream()
    first = start_broker("--log", address)
    second = start_broker("--log", new_stream())
    second.kill()
    second.flags = ("--log", address, "--standby")
    second.launch()
    second.prints("standing_by")
    assert second.stop() == 0
    assert publish(first, "a", "b") == ["replicated"] * 2
    assert first.running, "who stood by deposed it when it was stopped"


def test_a_body_larger_than_an_entry_comes_back(
    start_broker: StartBroker, new_stream: NewStream
) -> None:
    """A group commit of many of the largest messages is an atomic batch of entries."""
    server = start_broker("--log", new_stream())
    bodies = [letter * 1_000_000 for letter in "abcde"]
    with minibroker.sync.connect(server.url) as broker:
        broker.queue("orders").publish_many(bodies)
    server.kill()
    server.restart()
    with minibroker.sync.connect(server.url) as broker:
        queue = broker.queue("orders")
        found = [queue.peek(1, skip=skip)[0].body for skip in range(len(bodies))]
    assert found == bodies


def test_no_retained_log_is_made_where_its_files_would_be_on_one_machine(
    start_broker: StartBroker, new_stream: NewStream
) -> None:
    server = start_broker("--log", new_stream())
    refused = pytest.raises(minibroker.MinibrokerError, match="its files would be on one machine")
    with minibroker.sync.connect(server.url) as broker, refused:
        broker.queue("events").set(kind="log")


def test_a_stream_with_other_settings_is_refused_and_says_which(
    one_node: Nodes, tmp_path: Path
) -> None:
    """Nothing is changed: what is in it belongs to somebody."""

    async def make() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{one_node.all[0].port}")
        await client.jetstream().add_stream(name="others", subjects=["others"], max_age=60)
        await client.close()

    asyncio.run(make())
    address = one_node.address("others")
    words = ["serve", "--data-dir", str(tmp_path / "data"), "--port", "0", "--log", address]
    ended = subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == exits.USAGE, ended.stderr
    for text in ("max_age is", "discard is old, new is needed", "allow_atomic is false"):
        assert text in ended.stderr


def test_a_broker_that_stands_by_says_so_and_leads_at_once_behind_a_stop_in_good_order(
    start_broker: StartBroker, new_stream: NewStream
) -> None:
    """It has no time to wait for a silence: it is told."""
    address = new_stream()
    first = start_broker("--log", address)
    publish(first, "a")
    (http,) = free_ports(1)
    page = ("--http", f"127.0.0.1:{http}")
    second = start_broker("--log", new_stream(), *page, env={"MINIBROKER_NO_HTTP": "0"})
    second.kill()
    second.flags = ("--log", address, "--standby", *page)
    process = second.launch()
    second.prints(f"active=127.0.0.1:{first.port}")
    page_url = f"http://127.0.0.1:{http}"
    look_until(lambda: asked(f"{page_url}/readyz")[0] != 0, process, "an open page")
    leads = re.escape(f"standby 127.0.0.1:{first.port} leads")
    code, text = asked(f"{page_url}/readyz")
    assert code == 503
    assert re.fullmatch(rf"{leads}, \d+\.\d s behind\n", text)
    assert f"{first.port} leads, and this one is " in asked(f"{page_url}/")[1]
    metrics = asked(f"{page_url}/metrics")[1]
    assert "minibroker_stream_epoch 1\n" in metrics
    assert "\nminibroker_stream_bytes " not in metrics, "whoever leads knows that"
    for name in ("lag_entries", "lag_seconds", "stalled_seconds"):
        assert f"\nminibroker_stream_{name} " in metrics
    assert 'minibroker_phase{phase="standby"} 1' in metrics
    assert first.stop() == 0
    look_until(lambda: second.output.count("listening on") == 2, process, "a second start")
    assert waiting(second) == ["a"]
    assert "started    after a clean stop" in second.output
    assert asked(f"{page_url}/readyz") == (200, "ready\n")

    def metrics_of_one_that_leads() -> bool:
        text = asked(f"{page_url}/metrics")[1]
        names = ("bytes", "limit_bytes", 'leader{server="a"}', "servers_behind")
        return all(f"\nminibroker_stream_{name} " in text for name in names) and (
            "minibroker_stream_epoch 2\n" in text
        )

    look_until(metrics_of_one_that_leads, process, "a word of the stream's server")
