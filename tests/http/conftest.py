"""Brokers with an HTTP port, which end with the test that started them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from http_broker import TOKEN, HttpBroker, StartHttp

from support.broker import StartBroker
from support.processes import look_until


@pytest.fixture
def start_http(start_broker: StartBroker) -> Iterator[StartHttp]:
    """Start a broker whose HTTP port is open; `token` is what it takes changes for."""
    started: list[HttpBroker] = []

    def start(*flags: str, token: str = "", data_dir: Path | None = None) -> HttpBroker:
        env = {"MINIBROKER_NO_HTTP": "0", "MINIBROKER_HTTP_TOKEN": token}
        server = start_broker("--http", "127.0.0.1:0", *flags, env=env, data_dir=data_dir)
        look_until(
            lambda: any("  recovered " in line for line in server.lines), server.process, "a banner"
        )
        broker = HttpBroker(server)
        broker.wait()
        started.append(broker)
        return broker

    yield start
    for broker in started:
        broker.client.close()


@pytest.fixture
def http_broker(start_http: StartHttp) -> HttpBroker:
    """One broker with a page and a token."""
    return start_http(token=TOKEN)
