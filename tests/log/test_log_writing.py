"""Appending: who is told when, rotation, room, full disks, and failures that are final."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from threading import current_thread

import pytest
from log_world import NOW_MS, PATIENCE_SECONDS, UNIX_MS, Engine, FaultyOps, record

from minibrokerd.log.allocation import Allocation
from minibrokerd.log.failures import DamagedLog, LogFailed, NotWritable
from minibrokerd.log.seam import Batch, Log, Room

SMALL = 4096
LONG_US = int(PATIENCE_SECONDS * 1_000_000)
EIO = OSError(errno.EIO, "Input/output error")


def segments(path: Path) -> list[str]:
    """Return the names of the segment files, in order."""
    return sorted(item.name for item in path.glob("segment-*"))


async def test_an_append_that_may_wait_returns_true_and_calls_nothing_back(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "d").open()
    for _ in range(50):
        assert engine.hand(engine.batch(b"x"), LONG_US, lambda: None)
    engine.close()
    await asyncio.sleep(0)
    assert (engine.synced, engine.loop_errors) == ([], [])


async def test_an_append_gives_up_on_a_hanging_disk_and_is_called_back(tmp_path: Path) -> None:
    ops = FaultyOps()
    engine = Engine(tmp_path / "d", ops=ops).open()
    ops.gate.clear()
    assert not engine.hand(engine.batch(b"x"), 300, lambda: None)
    await asyncio.sleep(0)
    assert engine.synced == []
    ops.gate.set()
    await asyncio.wait_for(engine.news.wait(), PATIENCE_SECONDS)
    assert engine.synced == [engine.number]
    engine.close()
    await asyncio.sleep(0)
    assert engine.synced == [engine.number]


async def test_what_is_to_follow_a_sync_is_called_by_the_thread_that_synced(tmp_path: Path) -> None:
    """The loop stands still meanwhile, and goes on when it has returned."""
    engine = Engine(tmp_path / "d").open()
    threads: list[str] = []
    # One that is synced before the loop has said what follows is answered by the loop.
    for _ in range(200):
        assert engine.hand(
            engine.batch(b"x"), LONG_US, lambda: lambda: threads.append(current_thread().name)
        )
        if threads:
            break
    assert set(threads) == {"minibroker-log"}
    engine.close()


async def test_nothing_follows_a_sync_that_was_not_waited_for_or_failed(tmp_path: Path) -> None:
    """The loop has gone on, and may be writing to the same socket; or there is nothing to confirm."""
    ops = FaultyOps()
    engine = Engine(tmp_path / "d", ops=ops).open()
    called: list[str] = []
    ops.gate.clear()
    assert not engine.hand(engine.batch(b"x"), 300, lambda: lambda: called.append("gave up"))
    ops.gate.set()
    await asyncio.wait_for(engine.news.wait(), PATIENCE_SECONDS)
    ops.sync_errors = [EIO]
    assert not engine.hand(engine.batch(b"y"), LONG_US, lambda: lambda: called.append("failed"))
    assert called == []


async def test_an_append_that_may_wait_tells_every_batch_exactly_once(tmp_path: Path) -> None:
    """With waits about as long as a sync takes, either way must win often, and never both."""
    engine = Engine(tmp_path / "d", segment_bytes=1024 * 1024).open()
    at_once, called = 0, 0
    for turn in range(600):
        engine.news.clear()
        if engine.hand(engine.batch(b"x"), turn % 300, lambda: None):
            at_once += 1
        else:
            await asyncio.wait_for(engine.news.wait(), PATIENCE_SECONDS)
            called += 1
        await asyncio.sleep(0)
        assert len(engine.synced) == called
    assert at_once + called == 600
    assert called
    engine.close()
    await asyncio.sleep(0)
    assert len(engine.synced) == called


async def test_a_batch_is_synced_before_anyone_is_told(tmp_path: Path) -> None:
    ops = FaultyOps()
    engine = Engine(tmp_path / "d", ops=ops).open()
    ops.gate.clear()
    engine.news.clear()
    engine.hand(engine.batch(b"x"))
    assert await asyncio.to_thread(ops.writing.wait, PATIENCE_SECONDS)
    assert engine.synced == []
    ops.gate.set()
    await asyncio.wait_for(engine.news.wait(), PATIENCE_SECONDS)
    engine.close()


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("error", [EIO, OSError(errno.ENOSPC, "No space left")])
async def test_a_failed_sync_is_final(tmp_path: Path, error: OSError, now: bool) -> None:
    """Nothing after it is confirmed, though the next sync would succeed."""
    ops = FaultyOps()
    engine = Engine(tmp_path / "d", ops=ops).open()
    await engine.append(b"safe")
    ops.sync_errors = [error]
    writes = ops.synced_writes
    if now:
        assert not engine.hand(engine.batch(b"lost"), LONG_US, lambda: None)
    else:
        engine.hand(engine.batch(b"lost"))
    failure = await asyncio.wait_for(engine.failed, PATIENCE_SECONDS)
    assert isinstance(failure, LogFailed)
    assert failure.exit_code == 70
    assert failure.__cause__ is error
    with pytest.raises(LogFailed):
        engine.close()
    await asyncio.sleep(0)
    assert len(engine.synced) == 1
    assert ops.synced_writes == writes + 1, "a sync is never retried"
    assert (tmp_path / "d" / "failed").read_text().startswith(f"synced {failure.last_synced} ")
    again = Engine(tmp_path / "d").open()
    assert [batch.records[0].tail for batch in again.recovered] == [b"safe"]
    assert not (tmp_path / "d" / "failed").exists()
    again.close()


async def test_a_failure_between_batches_is_told_too(tmp_path: Path) -> None:
    ops = FaultyOps()
    engine = Engine(tmp_path / "d", ops=ops).open()
    await engine.append(b"safe")
    ops.sync_errors = [EIO]
    engine.log.segments.mark(NOW_MS, UNIX_MS)
    await asyncio.wait_for(engine.failed, PATIENCE_SECONDS)
    assert not engine.hand(engine.batch(b"late"), LONG_US, lambda: None)
    with pytest.raises(LogFailed):
        engine.close()
    await asyncio.sleep(0)
    assert len(engine.synced) == 1


class NamelessOps(FaultyOps):
    """A disk that does not give the next segment its name, or does not say that it has it."""

    def __init__(self, fails: str) -> None:
        super().__init__()
        self.fails = fails
        self.armed = False

    def rename(self, old: str, new: str) -> None:
        """Rename, or not."""
        if self.armed and self.fails == "rename" and "segment" in new:
            raise EIO
        super().rename(old, new)

    def sync_directory(self, descriptor: int) -> None:
        """Sync, or not."""
        if self.armed and self.fails == "sync_directory":
            raise EIO
        super().sync_directory(descriptor)


@pytest.mark.parametrize("fails", ["rename", "sync_directory"])
async def test_a_segment_that_got_no_name_is_not_missed_by_the_next_start(
    tmp_path: Path, fails: str
) -> None:
    """Its header was synced, but no start can find that: `failed` must not say that it is safe."""
    ops, path = NamelessOps(fails), tmp_path / "d"
    engine = Engine(path, ops=ops, segment_bytes=SMALL).open()
    await engine.append(b"s" * 2_000)
    last = engine.log.next_number - 1
    ops.armed = True
    engine.hand(engine.batch(b"x" * 2_000))
    failure = await asyncio.wait_for(engine.failed, PATIENCE_SECONDS)
    assert isinstance(failure, LogFailed)
    assert failure.last_synced == last
    engine.log.abandon()
    again = Engine(path, segment_bytes=SMALL).open()
    assert [batch.records[0].tail for batch in again.recovered] == [b"s" * 2_000]
    again.close()


async def test_a_lost_confirmed_batch_is_noticed_after_a_failure(tmp_path: Path) -> None:
    ops = FaultyOps()
    engine = Engine(tmp_path / "d", ops=ops, segment_bytes=SMALL).open()
    await engine.append(b"confirmed")
    path = tmp_path / "d" / segments(tmp_path / "d")[0]
    ops.sync_errors = [EIO]
    engine.hand(engine.batch(b"lost"))
    await asyncio.wait_for(engine.failed, PATIENCE_SECONDS)
    engine.log.abandon()
    data = path.read_bytes()
    at = data.index(b"confirmed")
    path.write_bytes(data[: at - 16] + bytes(SMALL - at + 16))
    with pytest.raises(DamagedLog):
        Engine(tmp_path / "d").recover()


async def test_short_writes_are_finished(tmp_path: Path) -> None:
    ops = FaultyOps()
    ops.short = 7
    engine = Engine(tmp_path / "d", ops=ops, segment_bytes=SMALL).open()
    await engine.append(b"in many pieces")
    engine.close()
    assert Engine(tmp_path / "d").open().recovered[0].records[0].tail == b"in many pieces"


async def test_a_write_that_takes_nothing_is_an_error(tmp_path: Path) -> None:
    ops = FaultyOps()
    engine = Engine(tmp_path / "d", ops=ops).open()
    ops.short = 0
    engine.hand(engine.batch(b"x"))
    failure = await asyncio.wait_for(engine.failed, PATIENCE_SECONDS)
    assert "took 0" in str(failure)
    engine.log.abandon()


async def test_the_log_goes_on_in_new_segments(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "d", segment_bytes=SMALL).open()
    sent = [[b"%04d" % number + os.urandom(700)] for number in range(40)]
    for (tail,) in sent:
        await engine.append(tail)
    assert len(segments(tmp_path / "d")) >= 10
    await engine.await_room(700)  # the thread may have had no moment between two batches
    assert engine.log.segments.reserve_segments == 3
    engine.close()
    assert Engine(tmp_path / "d").recover() == sent


async def test_the_largest_batch_goes_in(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "d", segment_bytes=SMALL).open()
    largest = engine.log.sizes.batch_bytes - record(b"").size_bytes
    sent = [bytes([number]) * largest for number in range(1, 4)]
    for tail in sent:
        await engine.append(tail)
    before = segments(tmp_path / "d")
    engine.close()
    assert segments(tmp_path / "d") == before, "the footer always has room"
    assert Engine(tmp_path / "d").recover() == [[tail] for tail in sent]


async def test_markers_do_not_pile_up(tmp_path: Path) -> None:
    ops = FaultyOps()
    engine = Engine(tmp_path / "d", ops=ops).open()
    await engine.append(b"x")
    before = ops.synced_writes
    for _ in range(100):
        engine.log.segments.mark(NOW_MS, UNIX_MS)
    await engine.append(b"y")
    assert ops.synced_writes == before + 2
    assert engine.synced == sorted(set(engine.synced))
    engine.close()


@pytest.mark.parametrize("clean", [True, False])
async def test_starts_without_traffic_do_not_grow_the_log(tmp_path: Path, clean: bool) -> None:
    path = tmp_path / "d"
    epochs = []
    names: set[int] = set()
    for _ in range(100):
        engine = Engine(path, segment_bytes=64 * 1024).open()
        assert engine.recovered == []
        epochs.append(engine.log.epoch)
        engine.close() if clean else engine.log.abandon()
        # The thread may or may not have had the time to make the next segment ready.
        names.add(len({entry.name for entry in path.iterdir()} - {"next.tmp"}))
    assert epochs == list(range(1, 101))
    assert len(names) == 1
    data = (path / segments(path)[0]).read_bytes()
    assert len(data.rstrip(b"\0")) <= 100 * 512


async def test_the_epoch_is_on_the_disk_before_start_returns(tmp_path: Path) -> None:
    ops = FaultyOps()
    ops.sync_errors = [EIO]
    engine = Engine(tmp_path / "d", ops=ops)
    engine.recover()
    with pytest.raises(NotWritable):
        engine.start()
    engine = Engine(tmp_path / "d").open()
    assert engine.log.epoch == 1
    engine.close()


async def test_room_is_refused_on_a_full_disk_and_granted_when_space_is_back(
    tmp_path: Path,
) -> None:
    """Acks go on meanwhile, out of the reserve; nobody has to ask again for space to be seen."""
    ops = FaultyOps()
    engine = Engine(tmp_path / "d", ops=ops, segment_bytes=SMALL).open()
    ops.full = True
    answers = []
    for _ in range(20):
        engine.room.clear()
        answers.append(engine.log.room_for(900))
        if answers[-1] is Room.WAIT:
            await asyncio.wait_for(engine.room.wait(), PATIENCE_SECONDS)
            continue
        if answers[-1] is Room.REFUSED:
            break
        await engine.append(bytes(900))
    assert answers[0] is Room.GRANTED
    assert answers[-1] is Room.REFUSED
    before = segments(tmp_path / "d")
    while len(segments(tmp_path / "d")) < len(before) + 2:
        await engine.append(b"ack" * 100)
    assert engine.log.segments.reserve_segments == 1
    assert engine.log.room_for(10) is Room.REFUSED, "the reserve is not for publishes"
    engine.room.clear()
    ops.full = False
    await asyncio.wait_for(engine.room.wait(), PATIENCE_SECONDS)
    assert engine.log.room_for(900) is Room.GRANTED
    assert engine.log.segments.reserve_segments == 3
    engine.close()


async def test_a_start_on_a_full_disk_works_and_takes_acks(tmp_path: Path) -> None:
    """After a clean and after an unclean stop: what is there suffices."""
    path = tmp_path / "d"
    engine = Engine(path, segment_bytes=SMALL).open()
    await engine.append(b"x")
    engine.log.abandon()
    for clean in (False, True, False, False):
        ops = FaultyOps()
        ops.full = True
        engine = Engine(path, segment_bytes=SMALL, ops=ops).open()
        assert engine.log.segments.reserve_segments == 3
        await engine.append(b"ack")
        engine.close() if clean else engine.log.abandon()
    assert len(Engine(path, segment_bytes=SMALL).recover()) == 5


async def test_room_ends_with_the_segment(tmp_path: Path) -> None:
    """What is asked for goes into the current segment or into the next one, once that is there."""
    engine = Engine(tmp_path / "d", segment_bytes=SMALL).open()
    answers = [engine.log.room_for(1000 * count) for count in range(1, 7)]
    assert answers[:2] == [Room.GRANTED, Room.GRANTED]
    assert answers[-1] is Room.WAIT
    await asyncio.wait_for(engine.room.wait(), PATIENCE_SECONDS)
    engine.close()


async def test_room_that_is_made_while_it_is_asked_for_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of the log makes the reserve whole between two looks of the loop at it."""
    engine = Engine(tmp_path / "d", segment_bytes=SMALL).open()
    made = engine.log._allocation
    made.prepare_next()
    missing, is_whole = made.reserve.pop(), vars(Allocation)["whole"].fget

    def whole(self: Allocation) -> bool:
        if missing not in made.reserve:
            made.reserve.append(missing)
        return bool(is_whole(self))

    monkeypatch.setattr(Allocation, "whole", property(whole))
    await engine.await_room(100)
    engine.close()


async def test_publishes_leave_no_trace_in_the_room(tmp_path: Path) -> None:
    """A lone publisher asks for a little more than it writes, each time, for ever: nothing may add up."""
    engine = Engine(tmp_path / "d", segment_bytes=SMALL).open()
    for _ in range(60):
        await engine.await_room(900)
        await engine.append(b"small")
    assert len(engine.synced) == 60
    engine.close()


async def test_the_largest_publish_gets_room_in_the_end(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "d", segment_bytes=SMALL).open()
    await engine.append(b"x" * 1000)
    largest = engine.log.sizes.batch_bytes
    await engine.await_room(largest)
    engine.close()


async def test_a_replaced_directory_ends_the_log_at_the_next_segment(tmp_path: Path) -> None:
    path = tmp_path / "d"
    engine = Engine(path, segment_bytes=SMALL).open()
    path.rename(tmp_path / "elsewhere")
    path.mkdir()
    for _ in range(8):
        if engine.failed.done():
            break
        engine.hand(engine.batch(bytes(1000)))
        await asyncio.wait_for(engine.news.wait(), PATIENCE_SECONDS)
        engine.news.clear()
    assert isinstance(engine.failed.result(), LogFailed)
    engine.log.abandon()


def test_the_seam_is_met() -> None:
    """mypy holds the assignment; here it is only named."""
    from minibrokerd.log.filelog import FileLog
    from minibrokerd.log.memorylog import MemoryLog

    logs: list[type[Log]] = [FileLog, MemoryLog]
    assert all(callable(getattr(log, "append", None)) for log in logs)


async def test_a_memory_log_behaves_like_one(tmp_path: Path) -> None:
    from minibrokerd.log.memorylog import MemoryLog

    log = MemoryLog()
    synced: list[int] = []
    assert list(log.recover()) == []
    log.lead(1, 1, synced.append, lambda: None, lambda _: None)
    log.append(Batch(log.next_number, [record(b"a")], 1, 1), log.next_number - 1)
    assert synced == []
    await asyncio.sleep(0)
    assert synced == [1]
    assert log.append(
        Batch(log.next_number, [record(b"b")], 1, 1), log.next_number - 1, 300, lambda: None
    )
    assert synced == [1]
    again = MemoryLog(log.batches)
    assert [batch.number for batch in again.recover()] == [1, 2]
