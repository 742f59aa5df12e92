"""Modules of tasks of other libraries, and workers that no test leaves behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from libraries import Library, Start

from support.broker import BrokerServer


@pytest.fixture
def start_library(tmp_path: Path, broker_server: BrokerServer) -> Iterator[Start]:
    """Start a worker of a library on a module with this source."""
    started: list[Library] = []

    def start(source: str, command: Sequence[str], settings: str = "") -> Library:
        folder = tmp_path / f"library-{len(started)}"
        folder.mkdir()
        started.append(Library(folder, broker_server.url, source, command, settings))
        started[-1].start()
        return started[-1]

    yield start
    for library in started:
        library.close()
