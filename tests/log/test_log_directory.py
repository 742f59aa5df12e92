"""The data directory: one holder, private files, nothing of others touched."""

from __future__ import annotations

import errno
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from log_world import Crash, CrashingOps, Engine

from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.failures import DirectoryLocked, NotWritable
from minibrokerd.log.fileops import FileOps

HOLD = """
import sys
from minibrokerd.log.filelog import FileLog
log = FileLog(sys.argv[1])
log.recover()
print("held", flush=True)
sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """Start a process that holds the directory until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def names(path: Path) -> list[str]:
    """Return the entries of a directory."""
    return sorted(item.name for item in path.iterdir())


async def test_a_second_server_is_refused_and_told_who_holds_the_directory(tmp_path: Path) -> None:
    with hold(tmp_path / "d") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DirectoryLocked, match=str(holder.pid)) as caught:
            Engine(tmp_path / "d").recover()
        assert caught.value.pid == holder.pid
        assert caught.value.exit_code == 75
        holder.kill()
    Engine(tmp_path / "d").open().close()


async def test_the_lock_ends_with_the_log(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "d").open()
    with pytest.raises(DirectoryLocked):
        Engine(tmp_path / "d").recover()
    engine.close()
    Engine(tmp_path / "d").open().close()


async def test_files_are_private(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.mkdir(mode=0o755)
    engine = Engine(path).open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(item.stat().st_mode) for item in path.iterdir()} == {0o600}
    engine.close()


async def test_the_session_key_stays(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "d").open()
    key, store = engine.log.session_key, engine.log.store_id
    engine.close()
    assert len(key) == 32
    assert len(store) == 16
    again = Engine(tmp_path / "d").open()
    assert (again.log.session_key, again.log.store_id) == (key, store)
    again.close()
    other = Engine(tmp_path / "e").open()
    assert other.log.session_key != key
    assert other.log.store_id != store
    other.close()


async def test_a_key_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    Engine(tmp_path / "d").open().close()
    (tmp_path / "d" / "key").write_bytes(b"short")
    with pytest.raises(NotWritable, match="5 bytes"):
        Engine(tmp_path / "d").recover()


async def test_a_directory_of_other_files_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(NotWritable, match=r"thesis\.txt"):
        Engine(tmp_path).recover()
    assert names(tmp_path) == ["thesis.txt"]


async def test_foreign_files_that_came_later_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "d"
    Engine(path).open().close()
    (path / "notes").write_text("mine")
    engine = Engine(path).open()
    assert engine.log.report.foreign == ["notes"]
    engine.close()
    assert (path / "notes").read_text() == "mine"


async def test_a_replaced_directory_is_noticed(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "d", FileOps())
    directory.open()
    directory.sync()
    (tmp_path / "d").rename(tmp_path / "e")
    (tmp_path / "d").mkdir()
    with pytest.raises(OSError, match="replaced"):
        directory.sync()
    directory.close()


async def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(NotWritable) as caught:
        Engine(tmp_path / "f").recover()
    assert caught.value.exit_code == 73


@pytest.mark.parametrize("segment_bytes", [0, 4095, 4097, 100_000])
def test_a_segment_size_off_the_grid_is_refused(tmp_path: Path, segment_bytes: int) -> None:
    from minibrokerd.log.filelog import FileLog

    with pytest.raises(ValueError, match="4096"):
        FileLog(tmp_path, segment_bytes=segment_bytes)


async def test_the_segment_size_may_change_between_starts(tmp_path: Path) -> None:
    sent = []
    for round_, size in enumerate((4096, 16_384, 8192)):
        engine = Engine(tmp_path / "d", segment_bytes=size).open()
        assert engine.log.segments.reserve_segments == 3
        for number in range(8):
            sent.append([b"%d-%d" % (round_, number) + bytes(1000)])
            await engine.append(*sent[-1])
        engine.log.abandon()
    assert Engine(tmp_path / "d").recover() == sent


class SyncedDirectories(FileOps):
    """Notes which directories were synced."""

    def __init__(self) -> None:
        self.synced: list[Path] = []

    def sync_directory(self, descriptor: int) -> None:
        """Sync and note."""
        super().sync_directory(descriptor)
        self.synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())


@pytest.mark.parametrize("killed", ["never", "before the sync"])
def test_the_way_to_a_new_directory_is_on_the_disk(tmp_path: Path, killed: str) -> None:
    """Every directory that was made, also by a start that was killed, is synced before anything is in it."""
    path = tmp_path / "a" / "b" / "data"
    if killed != "never":
        path.mkdir(parents=True)
    ops = SyncedDirectories()
    directory = DataDirectory(path, ops)
    directory.open()
    directory.close()
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= set(ops.synced)
    ops.synced.clear()
    directory.open()
    directory.close()
    assert not ops.synced, "once is enough"


def opened(path: Path, ops: FileOps) -> DataDirectory:
    """Return an open data directory."""
    directory = DataDirectory(path, ops)
    directory.open()
    return directory


def test_a_crash_while_a_failure_is_noted_stops_no_start(tmp_path: Path) -> None:
    """The note is there whole, or not at all: half of one would be refused at every start."""
    opened(tmp_path / "d", FileOps()).close()
    for crash_at in range(1, 20):
        ops = CrashingOps()
        directory = opened(tmp_path / "d", ops)
        ops.crash_at = ops.calls + crash_at
        try:
            directory.write_failed(7)
        except Crash:
            directory.close()
            directory = opened(tmp_path / "d", FileOps())
            assert directory.read_failed() in (None, 7)
            assert not directory.listing().foreign
            directory.close()
        else:
            assert crash_at > 4
            assert directory.read_failed() == 7
            directory.close()
            return
    pytest.fail("it never ended")


def test_a_full_disk_leaves_no_half_note_of_a_failure(tmp_path: Path) -> None:
    """A sync that fails for want of space: the note of it fails too, and the next start must still go."""

    class Full(FileOps):
        def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
            if b"synced" in bytes(data):
                raise OSError(errno.ENOSPC, "no space left")
            return super().write(descriptor, data, offset)

    directory = opened(tmp_path / "d", Full())
    with pytest.raises(OSError, match="no space"):
        directory.write_failed(7)
    assert directory.read_failed() is None
    directory.close()
    assert names(tmp_path / "d") == ["key", "lock"]
