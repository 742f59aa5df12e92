"""Brokers that are started, or stand by, while a log comes to their stream or leaves it: they wait, or say so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from test_moving_logs import Ended, command, ending, entries_of, log_in, moved, tallied

import minibroker.sync
from minibrokerd.core.core import Core
from minibrokerd.log.failures import LogMoved
from minibrokerd.log.seam import Batch, Record
from minibrokerd.moving import move as moving
from minibrokerd.moving.both_ends import How
from minibrokerd.moving.directories import DirectoryOrigin
from minibrokerd.moving.streams import StreamTarget
from minibrokerd.process import exits
from minibrokerd.replicated.failures import HalfMoved
from minibrokerd.replicated.stream_address import parse
from support.broker import BrokerServer, StartBroker
from support.processes import look_until

NewStream = Callable[[], str]
MESSAGES = 40


def left_with_messages(server: BrokerServer) -> Path:
    """Publish, stop the broker, and return its directory."""
    with minibroker.sync.connect(server.url) as broker:
        queue = broker.queue("orders")
        for number in range(MESSAGES):
            queue.publish(number)
    server.stop()
    return server.data_dir


def half_moved(path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a move into a stream that ends behind the first chunk."""
    with monkeypatch.context() as patch:
        patch.setattr("minibrokerd.moving.move.CHUNK_BATCHES", 7)
        patch.setattr("minibrokerd.moving.move._looked_through", tallied)
        with pytest.raises(Ended):
            asyncio.run(
                moving.move(
                    DirectoryOrigin(path), StreamTarget(parse(address)), How.MOVE, ending(1)
                )
            )


def test_a_start_on_a_half_deposes_nobody(
    start_broker: StartBroker, new_stream: NewStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever moves the log leads the stream: a start that is refused anyway must not end the move."""
    path, address = left_with_messages(start_broker()), new_stream()
    half_moved(path, address, monkeypatch)
    before = asyncio.run(entries_of(address))
    with pytest.raises(HalfMoved):
        list(log_in(parse(address)).recover())
    assert asyncio.run(entries_of(address)) == before


def test_a_start_on_a_log_that_was_moved_away_writes_nothing(
    start_broker: StartBroker, new_stream: NewStream, tmp_path: Path
) -> None:
    path, address = left_with_messages(start_broker()), new_stream()
    for source, dest in ((path, address), (address, tmp_path / "back")):
        done = command(source, dest)
        assert done.returncode == 0, done.stderr
    before = asyncio.run(entries_of(address))
    with pytest.raises(LogMoved):
        list(log_in(parse(address)).recover())
    assert asyncio.run(entries_of(address)) == before


def test_who_stands_by_waits_for_a_move_and_leads_behind_it(
    start_broker: StartBroker, new_stream: NewStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The move was killed and nobody says that he leads: half a log is none all the same."""
    path, address = left_with_messages(start_broker()), new_stream()
    half_moved(path, address, monkeypatch)
    waits = start_broker()
    waits.stop()
    waits.flags = ("--log", address, "--standby")
    waits.lines.clear()
    process = waits.launch()
    waits.prints("waits_for_move")
    before = asyncio.run(entries_of(address))
    done = command(path, address)
    assert done.returncode == 0, done.stderr
    assert before < asyncio.run(entries_of(address))
    look_until(lambda: "listening on" in waits.output, process, "that it leads")
    with minibroker.sync.connect(waits.url) as broker:
        assert len(broker.queue("orders").peek(MESSAGES + 1)) == MESSAGES


def test_a_stream_is_kept_for_the_log_while_its_source_is_looked_through(
    start_broker: StartBroker, new_stream: NewStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large log that takes seconds, in which a broker found an empty stream and made a log of its own."""
    path, address = left_with_messages(start_broker()), new_stream()

    async def ends(origin: object) -> None:
        raise Ended

    with monkeypatch.context() as patch:
        patch.setattr("minibrokerd.moving.move._looked_through", ends)
        with pytest.raises(Ended):
            asyncio.run(moved(DirectoryOrigin(path), StreamTarget(parse(address))))
    with pytest.raises(HalfMoved):
        list(log_in(parse(address)).recover())
    assert (
        asyncio.run(moved(DirectoryOrigin(path), StreamTarget(parse(address)))).messages == MESSAGES
    )


def test_who_stands_by_ends_when_the_log_is_elsewhere(
    start_broker: StartBroker, new_stream: NewStream, tmp_path: Path
) -> None:
    path, address = left_with_messages(start_broker()), new_stream()
    assert command(path, address).returncode == 0
    assert command(address, tmp_path / "back").returncode == 0
    before = asyncio.run(entries_of(address))
    late = start_broker()
    late.stop()
    late.flags = ("--log", address, "--standby")
    assert late.launch().wait(timeout=60) == exits.NOT_WRITABLE
    late.prints("it was moved to")
    assert asyncio.run(entries_of(address)) == before


class Files:
    """An origin whose batches come without a wait, as out of files."""

    name = "files"
    store_id = session_key = b""
    epoch = now_ms = unix_ms = 1
    clean = True

    async def batches(self) -> AsyncIterator[Batch]:
        """Yield batches that mean nothing."""
        for number in range(1, 101):
            yield Batch(number, [Record(2, b"x")], number, number)


async def test_the_loop_turns_while_files_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """In it a stream hears that it is led: a silent move was deposed by a broker that stands by."""
    monkeypatch.setattr("minibrokerd.moving.move.TURN_S", 0.0)
    monkeypatch.setattr(Core, "replay", lambda core, batch: None)
    turns = 0

    async def beats() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beating = asyncio.create_task(beats())
    tally, _ = await moving._looked_through(Files())  # type: ignore[arg-type]
    beating.cancel()
    assert tally.batches == 100
    assert turns >= 100
