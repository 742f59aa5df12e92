"""Fixtures for all tests: real brokers that never outlive the test that started them."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from support.broker import BrokerServer, StartBroker
from support.warm import CLAIMS

# A run in the background of a shell script ignores Ctrl-C, and hands that down to every process that it starts:
# the commands under test would never hear the signals that are sent to them.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The HTTP port has one number by default, and tests start many brokers at once; those of HTTP ask for a free one.
os.environ.setdefault("MINIBROKER_NO_HTTP", "1")


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[StartBroker]:
    """Start as many brokers as a test needs: `start_broker("--no-auto-create")`."""
    servers: list[BrokerServer] = []

    def start(
        *flags: str, data_dir: Path | None = None, env: Mapping[str, str] | None = None
    ) -> BrokerServer:
        directory = data_dir or tmp_path / f"data-{len(servers)}"
        servers.append(BrokerServer(directory, *flags, env=env))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def broker_server(start_broker: StartBroker) -> BrokerServer:
    """One running broker on a fresh directory."""
    return start_broker()


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder by which the processes of a run agree on who is first; see support/warm.py."""
    if CLAIMS not in os.environ:
        folder = TemporaryDirectory(prefix="minibroker-tests-")
        os.environ[CLAIMS] = folder.name
        config.add_cleanup(folder.cleanup)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the collector of garbage from what stays: all modules and all tests, in each process of the run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names that differ from process to process: tests side by side would not agree on what there is."""
    named = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if named:
        raise pytest.UsageError(
            f"these tests have an address in their name; give them ids: {named}"
        )
