"""Torn or damaged (docs/architecture.md, section 5): what a start makes of the files it finds."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from log_world import Crash, CrashingOps, Engine

from minibrokerd.log import format as layout
from minibrokerd.log.directory import DataDirectory, State
from minibrokerd.log.failures import DamagedLog, NewerFormat, NotWritable
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.format import Header, Kind, Origin, SegmentInfo

SMALL = 4096
FIRST = "segment-0000000001-00001.log"


async def written(path: Path, *batches: bytes, clean: bool, size: int = SMALL) -> None:
    """Make a log with one record in each batch, closed or as after a kill."""
    engine = Engine(path, segment_bytes=size).open()
    for tail in batches:
        await engine.append(tail)
    if clean:
        engine.close()
    else:
        engine.log.abandon()


async def recovered(path: Path, size: int = SMALL) -> Engine:
    """Recover without a start, and let go."""
    engine = Engine(path, segment_bytes=size)
    try:
        engine.recover()
    finally:
        engine.log.abandon()
    return engine


def ends_of(path: Path) -> list[int]:
    """Return where each batch of a segment file ends."""
    data = path.read_bytes()
    return [offset + header.batch_bytes for offset, header in layout.headers(data, len(data))]


def segments(path: Path) -> list[Path]:
    """Return the segment files, in order."""
    return sorted(path.glob("segment-*.log"))


async def filled(path: Path, count: int = 3, *, clean: bool = True) -> list[list[bytes]]:
    """Fill `count` segments and return what was written."""
    engine = Engine(path, segment_bytes=SMALL).open()
    content: list[list[bytes]] = []
    while len(segments(path)) < count:
        tail = b"%04d" % len(content) + bytes(900)
        await engine.append(tail)
        content.append([tail])
    if clean:
        engine.close()
    else:
        engine.log.abandon()
    return content


async def test_what_was_appended_comes_back(tmp_path: Path) -> None:
    await written(tmp_path / "d", b"a", b"b", b"", clean=True)
    engine = await recovered(tmp_path / "d")
    assert [batch.records[0].tail for batch in engine.recovered] == [b"a", b"b", b""]
    assert engine.log.clean
    assert engine.log.report.batches == 3
    numbers = [batch.number for batch in engine.recovered]
    assert numbers == sorted(set(numbers))


async def test_log_time_goes_on_from_the_newest_batch_of_any_kind(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "d").open()
    await engine.append(b"a")
    engine.log.close(77_000, 1)
    assert (await recovered(tmp_path / "d")).log.now_ms == 77_000


async def test_an_unclean_stop_loses_nothing_and_is_seen(tmp_path: Path) -> None:
    await written(tmp_path / "d", b"a", b"b", clean=False)
    engine = Engine(tmp_path / "d", segment_bytes=SMALL)
    assert engine.recover() == [[b"a"], [b"b"]]
    assert not engine.log.clean
    assert not engine.log.report.torn_bytes
    engine.start()
    assert segments(tmp_path / "d") == [tmp_path / "d" / "segment-0000000001-00002.log"]
    engine.close()
    assert (await recovered(tmp_path / "d")).log.clean


async def test_every_cut_at_the_tail_keeps_what_stands_before(tmp_path: Path) -> None:
    """Zeros or the end of the file after the cut: the last batch goes, its bytes are kept."""
    await written(tmp_path / "d", b"first", b"second" * 20, clean=False)
    whole = (tmp_path / "d" / FIRST).read_bytes()
    *_, begin, end = ends_of(tmp_path / "d" / FIRST)
    for cut in range(begin, end):
        for rest in (b"", bytes(len(whole) - cut)):
            (tmp_path / "d" / FIRST).write_bytes(whole[:cut] + rest)
            engine = await recovered(tmp_path / "d")
            lost = bool(whole[cut:end].strip(b"\0"))
            assert len(engine.recovered) == (1 if lost else 2 if rest else len(engine.recovered))
            if lost:
                assert engine.log.report.torn_bytes == len(whole[begin:cut].rstrip(b"\0"))


async def test_torn_bytes_are_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "d"
    await written(path, b"first", b"second" * 20, clean=False)
    whole = (path / FIRST).read_bytes()
    *_, begin, end = ends_of(path / FIRST)
    (path / FIRST).write_bytes(whole[: end - 40] + bytes(len(whole) - end + 40))
    engine = Engine(path, segment_bytes=SMALL).open()
    report = engine.log.report
    assert report.torn_kept == f"torn-1-{begin}.bin"
    assert (path / report.torn_kept).read_bytes() == whole[begin : end - 40]
    for reserve in path.glob("reserve-*"):
        assert not reserve.read_bytes().strip(b"\0"), "the old file was zeroed first"
    await engine.append(b"third")
    engine.close()
    again = await recovered(path)
    assert [batch.records[0].tail for batch in again.recovered] == [b"first", b"third"]
    assert not again.log.report.torn_bytes


async def test_every_flipped_bit_of_a_closed_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d"
    await written(path, b"first", b"second", clean=True)
    whole = (path / FIRST).read_bytes()
    used = ends_of(path / FIRST)[-1]
    bits = [*range(used * 8), *range(used * 8, SMALL * 8, 97)]
    for bit in bits:
        with (path / FIRST).open("r+b") as file:
            file.seek(bit // 8)
            file.write(bytes([whole[bit // 8] ^ 1 << bit % 8]))
        with pytest.raises(DamagedLog):
            await recovered(path)
        (path / FIRST).write_bytes(whole)
    assert len((await recovered(path)).recovered) == 2


async def test_a_flipped_bit_before_the_last_batch_of_an_open_log_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "d"
    await written(path, b"first", b"second", clean=False)
    whole = (path / FIRST).read_bytes()
    *_, begin, end = ends_of(path / FIRST)
    for bit in range(0, end * 8, 7):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (path / FIRST).write_bytes(flipped)
        if bit // 8 < begin:
            with pytest.raises(DamagedLog):
                await recovered(path)
        else:
            engine = await recovered(path)
            assert len(engine.recovered) == 1
            assert engine.log.report.torn_offset == begin


async def test_a_marker_makes_the_last_batch_certain(tmp_path: Path) -> None:
    path = tmp_path / "d"
    engine = Engine(path, segment_bytes=SMALL).open()
    await engine.append(b"only")
    engine.log.segments.mark(2, 2)
    engine.log.abandon()
    *_, begin, end, _ = ends_of(path / FIRST)
    whole = bytearray((path / FIRST).read_bytes())
    whole[end - 12] ^= 1
    (path / FIRST).write_bytes(whole)
    with pytest.raises(DamagedLog) as caught:
        await recovered(path)
    assert caught.value.offset == begin
    assert FIRST in caught.value.path
    assert caught.value.last_known == caught.value.first_lost + 1


async def test_bytes_further_off_than_one_batch_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "d"
    await written(path, b"a", clean=False, size=SMALL)
    data = bytearray((path / FIRST).read_bytes())
    *_, begin, end = ends_of(path / FIRST)
    data[end - 1] ^= 1 if data[end - 1] else 0
    data[begin + 100] ^= 1  # the last batch is bad, its header says how long it is
    data[end + 8] = 1
    (path / FIRST).write_bytes(data)
    with pytest.raises(DamagedLog, match="neither zero nor one batch"):
        await recovered(path)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("fault", ["missing", "empty", "renamed", "duplicated", "swapped", "cut"])
async def test_a_wrong_middle_segment_is_refused(tmp_path: Path, fault: str, clean: bool) -> None:
    path = tmp_path / "d"
    await filled(path, 4, clean=clean)
    _, second, third, fourth = segments(path)
    if fault == "missing":
        second.unlink()
    elif fault == "empty":
        second.write_bytes(b"")
    elif fault == "renamed":
        second.rename(path / "segment-0000000002-00007.log")
    elif fault == "duplicated":
        shutil.copy(second, third)
    elif fault == "swapped":
        second.rename(path / "x")
        third.rename(second)
        (path / "x").rename(third)
    else:
        end = ends_of(third)[-2]  # exactly on a batch boundary: the next header must tell
        third.write_bytes(third.read_bytes()[:end] + bytes(SMALL - end))
    with pytest.raises(DamagedLog):
        await recovered(path)
    assert fourth.exists()


@pytest.mark.parametrize("fault", ["flip", "cut"])
async def test_the_zeros_of_a_sealed_segment_are_verified(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "d"
    await filled(path, 3, clean=False)
    sealed = segments(path)[1]
    data = sealed.read_bytes()
    sealed.write_bytes(data[:-1] + b"\1" if fault == "flip" else data[:-1])
    with pytest.raises(DamagedLog, match="newer segment" if fault == "flip" else "4095 bytes"):
        await recovered(path)


async def test_a_segment_of_another_history_is_refused(tmp_path: Path) -> None:
    """A copy of the directory went its own way: same store, same numbers, other content."""
    await written(tmp_path / "a", b"common", clean=True)
    copy(tmp_path / "a", tmp_path / "b")
    for name, letter in (("a", b"a"), ("b", b"b")):
        engine = Engine(tmp_path / name, segment_bytes=SMALL).open()
        for _ in range(12):
            await engine.append(letter * 900)
        engine.close()
    shutil.copy(segments(tmp_path / "b")[1], segments(tmp_path / "a")[1])
    with pytest.raises(DamagedLog, match="does not follow"):
        await recovered(tmp_path / "a")


@pytest.mark.parametrize("clean", [True, False])
async def test_a_missing_last_segment_is_refused(tmp_path: Path, clean: bool) -> None:
    path = tmp_path / "d"
    await filled(path, 3, clean=clean)
    segments(path)[-1].unlink()
    with pytest.raises(DamagedLog, match="missing"):
        await recovered(path)


async def test_a_log_without_its_only_segment_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    await written(tmp_path / "d", b"a", clean=True)
    (tmp_path / "d" / FIRST).unlink()
    with pytest.raises(DamagedLog):
        await recovered(tmp_path / "d")


async def test_a_segment_of_another_directory_is_refused(tmp_path: Path) -> None:
    await filled(tmp_path / "a", 3)
    await filled(tmp_path / "b", 3)
    shutil.copy(segments(tmp_path / "b")[1], segments(tmp_path / "a")[1])
    with pytest.raises(DamagedLog, match="another data directory"):
        await recovered(tmp_path / "a")


async def test_stale_batches_behind_the_end_are_never_replayed(tmp_path: Path) -> None:
    """A recycled file may hold whole batches of an older segment within one batch of the end."""
    path = tmp_path / "d"
    await filled(path, 2, clean=False)
    first, second = segments(path)
    end = ends_of(second)[-1]
    stale = first.read_bytes()[ends_of(first)[0] : ends_of(first)[1]]
    data = second.read_bytes()
    second.write_bytes(data[:end] + stale + data[end + len(stale) :])
    engine = await recovered(path)
    assert engine.log.report.torn_bytes == len(stale.rstrip(b"\0"))


async def test_a_newest_file_with_a_torn_header_is_no_segment_yet(tmp_path: Path) -> None:
    path = tmp_path / "d"
    content = await filled(path, 2, clean=False)
    head = segments(path)[-1].read_bytes()[:60]
    (path / "segment-0000000003-00001.log").write_bytes(head + bytes(SMALL - 60))
    engine = Engine(path, segment_bytes=SMALL)
    assert engine.recover() == content
    assert engine.log.report.ignored == ["segment-0000000003-00001.log"]
    engine.start()
    engine.close()
    assert len((await recovered(path)).recovered) == len(content)


async def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.mkdir()
    body = layout.encode_body([SegmentInfo(99, SMALL, 1, 0, 0).record()])
    sizes = (body.body_bytes, body.record_count, body.heads_checksum)
    header = Header(Origin(bytes(16), 1, 1), 1, 0, 1, Kind.SEGMENT, *sizes, 1, 1)
    data = layout.encode_batch(header, body).ljust(SMALL, b"\0")
    (path / "lock").touch()
    (path / FIRST).write_bytes(data)
    with pytest.raises(NewerFormat, match="format 2"):
        await recovered(path)
    assert (path / FIRST).read_bytes() == data


@pytest.mark.parametrize("digit", [b"2", b"3", b"5", b"9"])
async def test_a_magic_is_newer_only_where_nothing_of_ours_follows(
    tmp_path: Path, digit: bytes
) -> None:
    """One flipped bit of a magic is damage; a file that is of a newer release throughout is not."""
    path = tmp_path / "d"
    await written(path, b"first", b"second", clean=True)
    whole, ends = (path / FIRST).read_bytes(), ends_of(path / FIRST)
    (path / FIRST).write_bytes(b"MBB" + digit + whole[4:])
    with pytest.raises(DamagedLog):
        await recovered(path)
    alone = whole[: ends[0]].ljust(SMALL, b"\0")
    (path / FIRST).write_bytes(b"MBB" + digit + alone[4:])
    with pytest.raises(DamagedLog):
        await recovered(path)
    (path / FIRST).write_bytes(whole.replace(b"MBB1", b"MBB" + digit)[:40] + b"another header")
    with pytest.raises(NewerFormat, match=f"format {digit.decode()}"):
        await recovered(path)


async def test_a_recovery_below_the_last_confirmed_batch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d"
    await written(path, b"a", b"b", clean=False)
    last = len(ends_of(path / FIRST))
    directory = DataDirectory(path, FileOps())
    directory.open()
    directory.write_failed(last + 1)
    directory.close()
    with pytest.raises(DamagedLog, match="failed"):
        await recovered(path)
    directory.open()
    directory.write_failed(last)
    directory.close()
    engine = Engine(path, segment_bytes=SMALL).open()
    assert len(engine.recovered) == 2
    assert not (path / "failed").exists()
    engine.close()


async def test_an_unreadable_segment_stops_the_start(tmp_path: Path) -> None:
    class Unreadable(FileOps):
        def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
            if size_bytes > 64 and not offset:  # no small file
                raise OSError(5, "Input/output error")
            return super().read(descriptor, size_bytes, offset)

    await written(tmp_path / "d", b"a", clean=True)
    engine = Engine(tmp_path / "d", segment_bytes=SMALL, ops=Unreadable())
    with pytest.raises(NotWritable, match="at byte 0"):
        engine.recover()


async def test_an_unreadable_state_counts_as_not_closed(tmp_path: Path) -> None:
    path = tmp_path / "d"
    await written(path, b"a", clean=True)
    (path / "state").write_bytes(b"rubbish")
    assert DataDirectory(path, FileOps()).read_state() is None
    assert not (await recovered(path)).log.clean, "a footer alone proves nothing"


def files(path: Path) -> dict[str, bytes]:
    """Return the files but the lock, which names the last holder."""
    return {item.name: item.read_bytes() for item in path.iterdir() if item.name != "lock"}


def copy(make: Path, work: Path) -> None:
    """Make `work` what `make` is, or nothing."""
    shutil.rmtree(work, ignore_errors=True)
    if make.exists():
        shutil.copytree(make, work)


async def crash_everywhere(make: Path, work: Path, check: list[list[bytes]]) -> int:
    """Crash a start at its n-th change for every n; each time the next start finds everything.

    Returns how many changes an undisturbed start makes.
    """
    crash_at = 0
    while True:
        crash_at += 1
        copy(make, work)
        ops = CrashingOps(crash_at)
        engine = Engine(work, segment_bytes=SMALL, ops=ops)
        try:
            engine.open()
        except Crash:
            engine.log.abandon()
        else:
            engine.log.abandon()
            return crash_at
        second = CrashingOps(crash_at // 2)
        engine = Engine(work, segment_bytes=SMALL, ops=second)
        with contextlib.suppress(Crash):  # the second crash, at another step of the recovery
            engine.open()
        engine.log.abandon()
        engine = Engine(work, segment_bytes=SMALL).open()
        assert [[r.tail for r in b.records] for b in engine.recovered] == check, crash_at
        assert engine.log.segments.reserve_segments == 3
        await engine.append(b"after")
        engine.close()
        assert len((await recovered(work)).recovered) == len(check) + 1
        assert len(segments(work)) == 1


async def test_a_crash_at_any_step_of_the_first_start(tmp_path: Path) -> None:
    assert await crash_everywhere(tmp_path / "none", tmp_path / "w", []) > 10


async def test_a_crash_at_any_step_of_a_start_after_a_clean_stop(tmp_path: Path) -> None:
    await written(tmp_path / "d", b"a", b"b", clean=True)
    assert await crash_everywhere(tmp_path / "d", tmp_path / "w", [[b"a"], [b"b"]]) > 3


async def test_a_crash_at_any_step_of_a_start_after_an_unclean_stop(tmp_path: Path) -> None:
    path = tmp_path / "d"
    await written(path, b"a", b"b", b"torn", clean=False)
    *_, begin, end = ends_of(path / FIRST)
    data = (path / FIRST).read_bytes()
    (path / FIRST).write_bytes(data[: begin + 50] + bytes(len(data) - begin - 50))
    assert begin + 50 < end
    assert await crash_everywhere(path, tmp_path / "w", [[b"a"], [b"b"]]) > 8


async def test_a_recovery_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "d"
    await written(path, b"a", clean=False)
    before = files(path)
    await recovered(path)
    assert files(path) == before
    assert DataDirectory(path, FileOps()).read_state() == State(False, 1)
