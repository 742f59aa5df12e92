"""A data directory that is taken away under the running server ends it, before much is confirmed into the void."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import minibroker
from support.broker import StartBroker


def removed(data: Path, aside: Path) -> None:
    shutil.rmtree(data)


def moved(data: Path, aside: Path) -> None:
    data.rename(aside)


def replaced(data: Path, aside: Path) -> None:
    data.rename(aside)
    data.mkdir()


def without_its_segment(data: Path, aside: Path) -> None:
    for segment in data.glob("segment-*.log"):
        segment.unlink()


def without_its_lock(data: Path, aside: Path) -> None:
    (data / "lock").unlink()


@pytest.mark.parametrize(
    "take",
    [removed, moved, replaced, without_its_segment, without_its_lock],
    ids=lambda f: f.__name__,
)
async def test_an_idle_server_notices_and_says_what(
    take: Callable[[Path, Path], None], start_broker: StartBroker, tmp_path: Path
) -> None:
    server = start_broker()
    async with minibroker.connect(server.url) as broker:
        await broker.queue("q").publish(b"x")
        take(server.data_dir, tmp_path / "aside")
        assert await asyncio.to_thread(server.process.wait, 20) == 70
    server.close()
    words: dict[Callable[[Path, Path], None], str] = {
        removed: "removed or moved",
        moved: "removed or moved",
        replaced: "replaced by another one",
        without_its_segment: "the segment that is written was removed",
        without_its_lock: "the lock was removed",
    }
    assert words[take] in server.output
    if take is replaced:
        assert list(server.data_dir.iterdir()) == [], "what is not ours stays as it is"


async def test_a_link_that_leads_elsewhere_now_is_a_directory_that_is_gone(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    """A start under this name would find the other one."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir(0o700)
    link = tmp_path / "link"
    link.symlink_to("one")
    server = start_broker(data_dir=link)
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(link)
    assert await asyncio.to_thread(server.process.wait, 20) == 70
    server.close()
    assert "replaced" in server.output


async def test_a_directory_that_was_moved_starts_where_it_is_now(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    server = start_broker()
    async with minibroker.connect(server.url) as broker:
        await broker.queue("q").publish(b"x")
        server.data_dir.rename(tmp_path / "aside")
        await asyncio.to_thread(server.process.wait, 20)
    server.close()
    server = start_broker(data_dir=tmp_path / "aside")
    async with minibroker.connect(server.url) as broker:
        [message] = await broker.queue("q").receive(wait=20)
        assert message.raw == b"x"
