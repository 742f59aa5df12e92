"""docs/decisions/0033: whatever a server does to its directory meanwhile, a back-up is the log of one moment."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from backup_world import Numbered, Watched, brought, lives, numbers, said, take
from log_world import Crash, CrashingOps

from minibrokerd.backups import backing, copying
from minibrokerd.backups.failures import NoBackup, OtherStore, ShelfInUse, Unsettled
from minibrokerd.backups.pace import Pace
from minibrokerd.backups.presenting import Presented
from minibrokerd.backups.shelf import Shelf
from minibrokerd.backups.verifying import verify
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.failures import DamagedLog, NotWritable
from minibrokerd.log.fileops import FileOps


async def test_a_running_log_is_copied_up_to_its_last_batch(tmp_path: Path) -> None:
    log = Numbered(tmp_path / "d")
    await log.fill(3)
    done = take(log.path, tmp_path / "b")
    assert done.rounds == 1
    assert done.copied_bytes == done.manifest.bytes
    assert numbers(brought(tmp_path / "b", tmp_path / "r")) == list(range(1, log.written + 1))
    log.engine.close()


async def test_a_closed_log_is_copied_whole(tmp_path: Path) -> None:
    log = Numbered(tmp_path / "d")
    await log.fill(1)
    log.engine.close()
    take(log.path, tmp_path / "b")
    assert numbers(brought(tmp_path / "b", tmp_path / "r")) == list(range(1, log.written + 1))


async def test_what_did_not_change_is_not_copied_again(tmp_path: Path) -> None:
    log = Numbered(tmp_path / "d")
    await log.fill(3)
    first = take(log.path, tmp_path / "b")
    await log.fill(1)
    ops = Watched()
    second = take(log.path, tmp_path / "b", ops)
    again = {each.file for each in first.manifest.segments} & second.manifest.files.keys()
    assert len(again) == 3
    assert second.copied_bytes < second.manifest.bytes
    whole = [name for name, offset in ops.reads if name.startswith("segment-") and offset]
    assert not [name for name in whole if name[8:18] in ("0000000001", "0000000002")]
    for number in (1, 2):
        kept = brought(tmp_path / "b", tmp_path / f"r{number}", number)
        assert numbers(kept)[0] == 1
    log.engine.close()


async def test_only_the_newest_are_kept_and_no_file_that_none_needs(tmp_path: Path) -> None:
    log, out = Numbered(tmp_path / "d"), tmp_path / "b"
    await log.fill(2)
    for _ in range(3):
        await log.write()
        done = take(log.path, out, keep=2)
        await log.free() if log.segments > 2 else None
    assert done.removed == [1]
    shelf = Shelf(out, FileOps())
    manifests = shelf.manifests()
    assert [each.number for each in manifests] == [2, 3]
    needed = set().union(*(each.files for each in manifests))
    there = {path.name for path in out.iterdir()}
    assert {name for name in there if name != "lock" and not name.startswith("backup-")} == needed
    log.engine.close()


Event = Callable[[Numbered], Coroutine[Any, Any, None]]


async def _freed(log: Numbered) -> None:
    await log.fill(1)
    await log.free()


async def _rotated(log: Numbered) -> None:
    await log.fill(2)


async def _all_freed(log: Numbered) -> None:
    await log.fill(1)
    while log.segments > 1:
        await log.free()


async def _crashed(log: Numbered) -> None:
    log.crash()
    await log.write()


@pytest.mark.parametrize("event", [_freed, _rotated, _all_freed, _crashed])
@pytest.mark.parametrize("segment", [1, 4])
@pytest.mark.parametrize("offset", [0, 1536])
async def test_what_happens_meanwhile_costs_nothing_that_was_confirmed_before(
    event: Event, segment: int, offset: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments 1 to 4 are there; once, in the middle of the reading of one of them, something happens."""
    monkeypatch.setattr(copying, "PIECE_BYTES", 512)
    log, ops = Numbered(tmp_path / "d"), Watched()
    await log.fill(3)
    await log.write()
    take(log.path, tmp_path / "b")
    await log.write()
    before, loop = log.written, asyncio.get_running_loop()
    left = [event]
    ops.when = lambda name, at: (
        name.startswith(f"segment-{segment:010d}") and at == offset and bool(left)
    )
    ops.happens = lambda: asyncio.run_coroutine_threadsafe(left.pop()(log), loop).result(20)
    await asyncio.to_thread(take, log.path, tmp_path / "c", ops)
    assert not left
    kept = numbers(await asyncio.to_thread(brought, tmp_path / "c", tmp_path / "r"))
    assert kept == list(range(kept[0], kept[-1] + 1))
    assert kept[-1] >= before
    log.engine.close()


async def test_what_is_written_while_the_newest_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a server that writes all the time would look damaged, or cost a round each time."""
    monkeypatch.setattr(copying, "PIECE_BYTES", 512)
    log, ops, loop = Numbered(tmp_path / "d"), Watched(), asyncio.get_running_loop()
    await log.write()
    await log.write()
    ops.when = lambda name, at: name.startswith("segment-") and at == 1536 and log.written == 2

    async def go_on() -> None:
        while log.written < 5:
            await log.write()

    ops.happens = lambda: asyncio.run_coroutine_threadsafe(go_on(), loop).result(20)
    done = await asyncio.to_thread(take, log.path, tmp_path / "b", ops)
    assert (done.rounds, log.written) == (1, 5)
    assert numbers(brought(tmp_path / "b", tmp_path / "r")) == [1, 2, 3, 4, 5]
    log.engine.close()


async def test_a_log_that_turns_over_faster_is_given_up_and_earlier_back_ups_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backing, "ROUNDS", 3)
    log, ops, loop = Numbered(tmp_path / "d"), Watched(), asyncio.get_running_loop()
    await log.fill(1)
    take(log.path, tmp_path / "b")
    ops.when = lambda name, at: name.startswith("segment-") and at == 0
    ops.happens = lambda: asyncio.run_coroutine_threadsafe(_all_freed(log), loop).result(20)
    with pytest.raises(Unsettled, match="3 rounds"):
        await asyncio.to_thread(take, log.path, tmp_path / "b", ops)
    assert numbers(brought(tmp_path / "b", tmp_path / "r"))[0] == 1
    log.engine.close()


@pytest.mark.parametrize(("segment", "at"), [(1, 0), (1, 1500), (2, 3000), (3, 50), (4, 1000)])
async def test_damage_is_told_from_what_a_server_did(segment: int, at: int, tmp_path: Path) -> None:
    """And no back-up comes of it: that there is one would be believed."""
    log = Numbered(tmp_path / "d")
    await log.fill(3)
    for _ in range(4):
        await log.write()
    path = log.path / f"segment-{segment:010d}-00001.log"
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(DamagedLog):
        take(log.path, tmp_path / "b")
    with pytest.raises(NoBackup):
        brought(tmp_path / "b", tmp_path / "r")
    log.engine.log.abandon()


@pytest.mark.parametrize("lost", ["a segment", "a batch", "the footer"])
async def test_what_is_known_to_have_been_there_must_be_there(lost: str, tmp_path: Path) -> None:
    """By the files `state` and `failed`, as a start knows it."""
    log = Numbered(tmp_path / "d")
    await log.fill(2)
    log.engine.close()
    directory, last = DataDirectory(log.path, FileOps()), log.path / "segment-0000000003-00001.log"
    directory.open()
    if lost == "a segment":
        last.unlink()
    elif lost == "a batch":
        directory.write_failed(10_000)
    else:
        data = last.read_bytes()
        at = data.rindex(b"MBB1")
        last.write_bytes(data[:at] + bytes(len(data) - at))
    directory.close()
    with pytest.raises(DamagedLog):
        take(log.path, tmp_path / "b")


async def test_a_full_disk_costs_no_back_up_that_is_there(tmp_path: Path) -> None:
    class Full(FileOps):
        def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    log = Numbered(tmp_path / "d")
    await log.write()
    take(log.path, tmp_path / "b")
    await log.write()
    with pytest.raises(NotWritable, match="No space left on device; make space"):
        take(log.path, tmp_path / "b", Full())
    assert numbers(brought(tmp_path / "b", tmp_path / "r")) == [1]
    log.engine.close()


async def test_a_place_of_another_log_or_of_something_else_is_refused(tmp_path: Path) -> None:
    one, other = Numbered(tmp_path / "one"), Numbered(tmp_path / "other")
    take(one.path, tmp_path / "b")
    with pytest.raises(OtherStore):
        take(other.path, tmp_path / "b")
    with pytest.raises(NotWritable, match="not ours"):
        take(one.path, other.path)
    assert numbers(brought(tmp_path / "b", tmp_path / "r")) == []
    one.engine.close()
    other.engine.close()


async def test_two_at_once_are_refused(tmp_path: Path) -> None:
    log, shelf = Numbered(tmp_path / "d"), Shelf(tmp_path / "b", FileOps())
    shelf.open()
    with pytest.raises(ShelfInUse):
        take(log.path, tmp_path / "b")
    shelf.close()
    take(log.path, tmp_path / "b")
    log.engine.close()


async def test_a_back_up_that_dies_at_any_call_harms_none_and_the_next_goes_on(
    tmp_path: Path,
) -> None:
    log, out = Numbered(tmp_path / "d"), tmp_path / "b"
    await log.fill(2)
    take(log.path, out)
    expected, whole = log.written, False
    for call in count(1):
        await log.write()
        try:
            take(log.path, out, CrashingOps(call), keep=2)
            whole = True
        except Crash:
            pass
        manifest = Shelf(out, FileOps()).manifest(None)
        assert not verify(Shelf(out, FileOps()), manifest).wrong
        kept = numbers(said(out, Presented(Shelf(out, FileOps()), manifest)))
        assert kept[-1] in (expected, log.written)
        expected = kept[-1]
        if whole:
            break
    assert call > 10
    assert expected == log.written
    assert not list(out.glob("*.tmp"))
    log.engine.close()


async def test_what_a_dead_back_up_had_copied_is_used(tmp_path: Path) -> None:
    log, out = Numbered(tmp_path / "d"), tmp_path / "b"
    await log.fill(3)
    shelf = Shelf(out, FileOps())
    shelf.open()

    class Died(BaseException):
        pass

    def die(manifest: object) -> None:
        raise Died

    shelf.commit = die  # type: ignore[method-assign]
    with pytest.raises(Died):
        backing.back_up(log.path, shelf, FileOps(), keep=1, pace=Pace())
    shelf.close()
    assert take(log.path, out).copied_bytes == 0 + _newest_bytes(out)
    log.engine.close()


def _newest_bytes(out: Path) -> int:
    return Shelf(out, FileOps()).manifest(None).segments[-1].bytes


async def test_segments_of_one_name_in_two_lives_of_a_log_are_two(tmp_path: Path) -> None:
    """Restored from an older back-up, it goes on to segments whose names the place has from the other life."""
    log, out = Numbered(tmp_path / "d"), tmp_path / "b"
    await log.fill(1)
    take(log.path, out)
    early = log.written
    await log.fill(3)
    take(log.path, out)
    log.engine.close()
    brought(out, tmp_path / "again", 1)
    second = Numbered(tmp_path / "again")
    second.written = early
    while second.segments < 5:
        await second.write(life=2)
    take(second.path, out)
    tails = brought(out, tmp_path / "r")
    assert numbers(tails) == list(range(1, second.written + 1))
    assert set(lives(tails)[early:]) == {2}
    second.engine.close()


def test_a_pace_holds_up_and_makes_nothing_up_for_later() -> None:
    now, pauses = [100.0], list[float]()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    pace = Pace(1_000, clock=lambda: now[0], pause=pause)
    pace.spend(500)
    pace.spend(250)
    now[0] += 60
    pace.spend(1_000)
    assert pauses == [0.5, 0.25, 1.0]
    Pace(0, clock=lambda: now[0], pause=pause).spend(10**9)
    assert len(pauses) == 3
