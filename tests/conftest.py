"""Fixtures for all tests: real brokers that never outlive the test that started them."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings

from minibroker.session.calls import FOREVER_MS
from support.broker import BrokerServer, StartBroker
from support.warm import CLAIMS


# A run in the background of a shell script ignores Ctrl-C and SIGQUIT, one under nohup SIGHUP, and hands that down
# to every process that it starts: the commands under test would never hear the signals that are sent to them. What
# has a handler here is back at its default there.
def hear_signals() -> None:
    """Have what is started next hear what is sent to it."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


hear_signals()


def pytest_runtest_setup() -> None:
    """A test of before, or a library in it, may have had them ignored in this process."""
    hear_signals()


# Tables in pipes are as wide as this says, and tests read them.
os.environ.pop("COLUMNS", None)

# The HTTP port has one number by default, and tests start many brokers at once; those of HTTP ask for a free one.
os.environ.setdefault("MINIBROKER_NO_HTTP", "1")


# A slow machine is no fault of what is tested: an example has no deadline, and neither has the making of it.
settings.register_profile(
    "patient",
    parent=settings.default,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")


# The files that last longest, longest first: the others are taken in their order.
SLOWEST = (
    "bridges/test_bridges.py",
    "cuts/test_cuts.py",
    "docs/test_guide_second_half.py",
    "docs/test_guide_first_half.py",
    "packaging/test_wheel.py",
    "cli/test_endings.py",
    "cli/test_offline_commands.py",
    "docs/test_pages.py",
    "server/test_stopping.py",
    "http/test_page_for_all.py",
    "http/test_page.py",
    "http/test_page_large.py",
    "contrib/test_killed_libraries.py",
    "http/test_http_tokens.py",
    "demo/test_signup_demo.py",
    "access/test_attacks.py",
    "server/test_small_segments.py",
    "server/test_fail_stop.py",
    "sim/test_lost_syncs.py",
    "sim/test_sim.py",
    "cli/test_commands.py",
    "cli/test_misuse.py",
    "cli/test_terminals.py",
    "worker/test_stopping_worker.py",
    "worker/test_ways_out.py",
    "server/test_frame_vectors.py",
    "server/test_hostile_frames.py",
    "bridges/test_bridge_command.py",
    "kills/test_broker_kills.py",
    "core/test_model.py",
    "planted/test_planted.py",
    "cluster_faults/test_cluster_faults.py",
    "story/test_story.py",
    "full_disk/test_full_disk.py",
    "faults/test_faults.py",
    "backups/test_backup_kills.py",
    "server/test_unread_log.py",
    "sync/test_prefork.py",
    "testing/test_plugin.py",
)
RANKS = {f"tests/{name}": rank for rank, name in enumerate(SLOWEST)}


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


@pytest.fixture
def refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused for now is not tried again: the last try may have no answer at the deadline."""
    monkeypatch.setattr("minibroker.session.calls.LEAST_MS", FOREVER_MS)


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
    """Put the slowest files first, so that no process of the run is left alone with one of them at its end.

    Names that differ from process to process are refused: tests side by side would not agree on what there is.
    """
    items.sort(key=lambda item: RANKS.get(item.nodeid.partition("::")[0], len(RANKS)))
    named = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if named:
        raise pytest.UsageError(
            f"these tests have an address in their name; give them ids: {named}"
        )
