"""The pytest plugin of minibroker: four fixtures. It stands apart from the package, so that a test run which uses
none of them loads nothing of it; docs/testing.md shows how they are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from minibroker.testing import MemoryBroker, ServerProcess, SyncMemoryBroker


@pytest.fixture
def minibroker(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBroker]:
    """A broker in memory, of this test alone; what connects without a URL finds it (MINIBROKER_URL)."""
    from minibroker.testing import MemoryBroker

    with MemoryBroker() as broker:
        monkeypatch.setenv("MINIBROKER_URL", broker.url)
        yield broker


@pytest.fixture
def minibroker_clock(minibroker: MemoryBroker) -> MemoryBroker:
    """The same broker, its time standing still: nothing is due before `advance`."""
    minibroker.stop_clock()
    return minibroker


@pytest.fixture
def minibroker_sync(monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncMemoryBroker]:
    """As `minibroker`, for tests and applications that block (`minibroker.sync`)."""
    from minibroker.testing import SyncMemoryBroker

    with SyncMemoryBroker() as broker:
        monkeypatch.setenv("MINIBROKER_URL", broker.url)
        yield broker


@pytest.fixture(scope="session")
def minibroker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A real broker in a process of its own, on a free port, for all tests that ask for it."""
    from minibroker.testing import ServerProcess

    with ServerProcess(tmp_path_factory.mktemp("minibroker") / "data") as server:
        yield server
