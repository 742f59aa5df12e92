"""`minibroker log move`: what a start finds in a directory, it finds in the stream, and back in a directory."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import lived_log
import pytest
from make_vectors import VECTORS

import minibroker
from minibrokerd.bodies.store import BodyStore
from minibrokerd.cli.log_move import shown
from minibrokerd.core.core import Core
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.failures import LogMoved
from minibrokerd.log.filelog import FileLog
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.recovery import Recovery
from minibrokerd.log.seam import Batch, Record
from minibrokerd.moving.both_ends import CannotMove, How, Origin, Tally, Target
from minibrokerd.moving.directories import DirectoryOrigin, DirectoryTarget
from minibrokerd.moving.move import Moved, move
from minibrokerd.moving.streams import StreamOrigin, StreamTarget
from minibrokerd.process import exits
from minibrokerd.replicated.failures import HalfMoved
from minibrokerd.replicated.log import JetStreamLog
from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.stream import Stream
from minibrokerd.replicated.stream_address import StreamAddress, parse
from support.broker import BrokerServer, StartBroker

NewStream = Callable[[], str]
OLD = sorted(path.name.removesuffix(".found.json") for path in VECTORS.glob("*.found.json"))
SEGMENT_BYTES = 1024 * 1024
SMALL_STREAM = 2_000  # batches


def old_directory(name: str, tmp_path: Path) -> Path:
    """Return a copy of a directory in which every type of record stands."""
    path = Path(shutil.copytree(VECTORS / name, tmp_path / name))
    path.chmod(0o700)
    return path


def read(path: Path) -> tuple[list[list[tuple[int, bytes, bytes]]], Recovery]:
    """Return the records of all batches, and what else was read."""
    recovery = Recovery(DataDirectory(path, FileOps()), FileOps())
    found = []
    for batch in recovery.batches():
        assert isinstance(batch, Batch)
        found.append([(one.type, one.meta, bytes(one.tail)) for one in batch.records])
    return found, recovery


async def moved(origin: Origin, target: Target, how: How = How.MOVE) -> Moved:
    """Move a log, and say nothing meanwhile."""
    return await move(origin, target, how, lambda count: None)


def epoch_of(path: Path) -> int:
    """Return the newest epoch in a directory."""
    return read(path)[1].epoch


def without_epochs(found: Any) -> Any:
    """Return what was found, where the tokens of new deliveries do not say in which epoch they were given."""
    if isinstance(found, dict) and "asking" in found:
        runs = found["asking"]["received"]
        return found | {
            "asking": found["asking"] | {"received": [[run[0] % 2**40, *run[1:]] for run in runs]}
        }
    return found


def random_log(path: Path, seed: int, count: int) -> None:
    """Write batches of records of any size, some of them larger than an entry of a stream."""
    random = Random(seed)
    log = FileLog(path, segment_bytes=SEGMENT_BYTES * 8)
    list(log.recover())
    log.lead(0, 1, lambda number: None, lambda: None, lambda error: None)
    for number in range(count):
        records = [
            Record(2, random.randbytes(random.randrange(1, 80)), random.randbytes(size))
            for size in random.choices((0, 10, 1_000, 700_000), (4, 4, 2, 0.1), k=3)
        ]
        batch = Batch(log.next_number, records, number * 10, 1_700_000_000_000 + number)
        while not log.append(batch, batch.number - 1, wait_us=10_000_000):
            pass
    if random.random() < 0.5:
        log.close(count * 10, 1_700_000_000_000 + count)
    else:
        log.abandon()


@pytest.mark.parametrize("name", OLD)
async def test_all_that_is_found_is_found_after_two_moves(
    name: str, tmp_path: Path, new_stream: NewStream
) -> None:
    """Settings, histories, leases, keys, outcomes of frames, sessions, and the numbers that come next."""
    path, back, address = old_directory(name, tmp_path), tmp_path / "back", parse(new_stream())
    says = json.loads((VECTORS / f"{name}.found.json").read_text())
    before = lived_log.Found(path, says["clients"], says["unix_ms"], digests=False).everything()
    records, was = read(path)
    key = (path / "key").read_bytes()
    epoch = epoch_of(path)
    there = await moved(DirectoryOrigin(path), StreamTarget(address))
    again = await moved(StreamOrigin(address), DirectoryTarget(back, SEGMENT_BYTES))
    assert there.digest == again.digest
    assert there.messages == again.messages > 0
    found, now = read(back)
    assert found == records
    assert (now.store_id, now.clean, (back / "key").read_bytes()) == (was.store_id, was.clean, key)
    assert now.epoch > again.epoch > epoch
    after = lived_log.Found(back, says["clients"], says["unix_ms"], digests=False).everything()
    for part in before:
        if part not in ("epoch", "goes_on"):
            assert without_epochs(after[part]) == without_epochs(before[part]), part
    assert epoch_of(back) > epoch


@pytest.mark.parametrize("seed", range(3))
async def test_a_move_that_is_ended_goes_on(
    seed: int, tmp_path: Path, new_stream: NewStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended behind any chunk: nobody may start on the half, and the second move copies the rest."""
    monkeypatch.setattr("minibrokerd.moving.move.CHUNK_BATCHES", 7)
    monkeypatch.setattr("minibrokerd.moving.move._looked_through", tallied)
    path, address = tmp_path / "data", parse(new_stream())
    random_log(path, seed, 60)
    target = StreamTarget(address)
    with pytest.raises(Ended):
        await move(DirectoryOrigin(path), target, How.MOVE, ending(seed + 1))
    with pytest.raises(HalfMoved, match="begin `minibroker log move` again"):
        list(log_in(address).recover())
    rest = await moved(DirectoryOrigin(path), StreamTarget(address))
    assert 0 < rest.resumed < rest.batches == 60
    back = tmp_path / "back"
    with pytest.raises(Ended):
        await move(
            StreamOrigin(address),
            DirectoryTarget(back, 8 * SEGMENT_BYTES),
            How.MOVE,
            ending(seed + 1),
        )
    assert not back.exists()
    await moved(StreamOrigin(address), DirectoryTarget(back, 8 * SEGMENT_BYTES))
    assert read(back)[0] == read(path)[0]


class Ended(Exception):
    """The process was killed there."""


def ending(chunks: int) -> Callable[[int], object]:
    """Return an `advance` that ends the move behind so many chunks."""
    left = chunks

    def advance(count: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Ended

    return advance


async def tallied(origin: Origin) -> tuple[Tally, Core]:
    """Stand in for the look at what a core makes of it: these batches mean nothing."""
    tally = Tally()
    async for batch in origin.batches():
        tally.add(batch)
    return tally, Core(BodyStore())


def log_in(address: StreamAddress) -> JetStreamLog:
    """Return the log of a broker in a stream."""

    async def open_stream() -> Stream:
        stream = NatsStream(address)
        await stream.open()
        return stream

    return JetStreamLog("a stream", open_stream)


@pytest.mark.parametrize("name", OLD[:1])
async def test_who_was_left_is_refused_and_so_is_another_target(
    name: str, tmp_path: Path, new_stream: NewStream
) -> None:
    path, address = old_directory(name, tmp_path), parse(new_stream())
    await moved(DirectoryOrigin(path), StreamTarget(address), How.LOOK)
    list(log_in(address).recover())  # an empty stream: nothing was written to it
    with pytest.raises(CannotMove, match="it is not empty"):
        await moved(DirectoryOrigin(path), StreamTarget(address))
    other = parse(new_stream())
    await moved(DirectoryOrigin(path), StreamTarget(other))
    with pytest.raises(LogMoved, match=f"it was moved to {other}"):
        FileLog(path).recover()
    with pytest.raises(LogMoved):
        await moved(DirectoryOrigin(path), StreamTarget(parse(new_stream())))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(CannotMove, match="not empty"):
        await moved(StreamOrigin(other), DirectoryTarget(tmp_path / "full", SEGMENT_BYTES))
    await moved(StreamOrigin(other), DirectoryTarget(tmp_path / "back", SEGMENT_BYTES))
    with pytest.raises(LogMoved):
        list(log_in(other).recover())
    # Both still hold the very same batches, and no server would start on them.
    back = DirectoryOrigin(tmp_path / "back")
    with pytest.raises(CannotMove, match="was moved away"):
        await moved(back, StreamTarget(other))
    third = parse(new_stream())
    await moved(DirectoryOrigin(tmp_path / "back"), StreamTarget(third))
    with pytest.raises(CannotMove, match="was moved away"):
        await moved(StreamOrigin(third), DirectoryTarget(path, SEGMENT_BYTES))


# -- the command, with brokers ------------------------------------------------------------------------


def command(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `minibroker log move`."""
    return subprocess.run(
        [sys.executable, "-m", "minibrokerd", "log", "move", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_errors_name_an_end_without_its_password() -> None:
    assert "secret" not in str(shown("tls://orders:secret@127.0.0.1/orders"))
    assert str(shown("data")) == "data"


def test_a_server_that_runs_keeps_its_log(
    start_broker: StartBroker, new_stream: NewStream, tmp_path: Path
) -> None:
    """By the lock of a directory, and by what a broker says that leads a stream."""
    address = new_stream()
    files, stream = start_broker(), start_broker("--log", address)
    assert command(files.data_dir, new_stream()).returncode == exits.LOCKED
    done = command(address, tmp_path / "back")
    assert done.returncode == exits.REFUSED
    assert "a broker leads it; stop those that stand by, then that one" in done.stderr
    assert stream.running


async def test_a_retained_log_stays(
    start_broker: StartBroker, new_stream: NewStream, tmp_path: Path
) -> None:
    server = await asyncio.to_thread(start_broker)
    async with minibroker.connect(server.url) as broker:
        await broker.queue("news", kind="log").publish("x")
    server.stop()
    done = await asyncio.to_thread(command, server.data_dir, new_stream())
    assert done.returncode == exits.REFUSED
    assert "news is a retained log" in done.stderr
    await asyncio.to_thread(server.restart)


async def test_a_copy_of_a_stream_is_a_back_up(
    start_broker: StartBroker, new_stream: NewStream, tmp_path: Path
) -> None:
    """Taken while a broker leads, which hears nothing of it; restored as any back-up is."""
    address, copy = new_stream(), tmp_path / "copy"
    server = await asyncio.to_thread(start_broker, "--log", address)
    async with minibroker.connect(server.url) as broker:
        queue = broker.queue("orders")
        await queue.publish_many(["a", "b"])
        done = await asyncio.to_thread(command, address, copy, "--copy")
        assert done.returncode == 0, done.stderr
        await queue.publish("c")
    restore = [sys.executable, "-m", "minibrokerd", "log", "restore", "--data-dir", str(copy)]
    await asyncio.to_thread(subprocess.run, restore, check=True, capture_output=True)
    restored = await asyncio.to_thread(start_broker, data_dir=copy)
    async with minibroker.connect(restored.url) as broker:
        found = await broker.queue("orders").peek(10)
        assert [message.body for message in found] == ["a", "b"]
    assert server.running


async def test_clients_go_on_over_a_move(
    start_broker: StartBroker, new_stream: NewStream, tmp_path: Path
) -> None:
    """Under load: the server stops, the log moves, the server starts on the stream at the same port."""
    address = new_stream()
    server = await asyncio.to_thread(start_broker)
    over, is_whole = asyncio.Event(), asyncio.Event()
    confirmed: list[str] = []
    got: list[str] = []

    more = asyncio.Event()  # was confirmed

    async def more_of(count: int) -> None:
        wanted = len(confirmed) + count
        while len(confirmed) < wanted:
            more.clear()
            await more.wait()

    async def publishes(queue: minibroker.Queue) -> None:
        while not over.is_set():
            body = f"m{len(confirmed)}"
            await queue.publish(body)
            confirmed.append(body)
            more.set()

    async def consumes(queue: minibroker.Queue) -> None:
        async for message in queue.consume(prefetch=10):
            got.append(str(message.body))
            await message.ack()
            if is_whole.is_set() and set(confirmed) <= set(got):
                return

    async with minibroker.connect(server.url) as broker:
        queue = broker.queue("orders")
        work = [asyncio.create_task(publishes(queue)), asyncio.create_task(consumes(queue))]
        for _ in range(2):
            await more_of(50)
            assert await asyncio.to_thread(server.stop) == 0
            source: object = address if "--log" in server.flags else server.data_dir
            dest: object = tmp_path / "back" if "--log" in server.flags else address
            done = await asyncio.to_thread(command, source, dest)
            assert done.returncode == 0, done.stderr
            is_back = "--log" in server.flags
            advice = "copy the file `tokens`" if is_back else f"--standby --data-dir {source}"
            assert advice in done.stderr
            server.flags = () if is_back else ("--log", address)
            server.data_dir = tmp_path / ("back" if is_back else "other")
            await asyncio.to_thread(server.restart)
        await more_of(50)
        over.set()
        await work[0]
        confirmed.append("last")
        is_whole.set()
        await queue.publish("last")
        await work[1]
    assert sorted(got) == sorted(confirmed), "each one once"


def test_a_killed_move_goes_on(
    start_broker: StartBroker, new_stream: NewStream, tmp_path: Path
) -> None:
    """By SIGKILL, whenever: begun again it ends well, and the source was no server's meanwhile."""
    server, address = start_broker(), new_stream()
    asyncio.run(filled(server, SMALL_STREAM))
    server.stop()
    words = [sys.executable, "-m", "minibrokerd", "log", "move", str(server.data_dir), address]
    process = subprocess.Popen(words)
    while asyncio.run(entries_of(address)) == 0 and process.poll() is None:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = command(server.data_dir, address, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["messages"] == SMALL_STREAM


async def filled(server: BrokerServer, count: int) -> None:
    """Publish so many messages, each in a batch of its own, about."""
    async with minibroker.connect(server.url) as broker:
        queue = broker.queue("orders")
        for _ in range(count // 10):
            await queue.publish_many([b"x" * 1_000] * 10)


async def entries_of(address: str) -> int:
    """Return the last entry of a stream."""
    stream = NatsStream(parse(address))
    await stream.open()
    try:
        return (await stream.info()).last
    finally:
        await stream.close()
