"""A restore is whole or not there, and what it leaves when it is cut short is no data directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from backup_world import Numbered, brought, numbers, said, take
from log_world import Crash, CrashingOps, Engine

from minibrokerd.backups.bringing import bring_back
from minibrokerd.backups.failures import BackupDamaged
from minibrokerd.backups.shelf import Shelf
from minibrokerd.backups.verifying import verify
from minibrokerd.log.failures import NotWritable
from minibrokerd.log.fileops import FileOps
from minibrokerd.rescue.restoring import RAISED_EPOCHS


@pytest.fixture
async def shelf(tmp_path: Path) -> Shelf:
    """One back-up of a log of two segments."""
    log = Numbered(tmp_path / "d")
    await log.fill(1)
    (log.path / "tokens").write_text("hashes of tokens")
    take(log.path, tmp_path / "b")
    log.engine.close()
    return Shelf(tmp_path / "b", FileOps())


async def test_it_is_raised_as_a_copy_is(shelf: Shelf, tmp_path: Path) -> None:
    target = tmp_path / "r"
    done = bring_back(shelf, None, target, FileOps(), new_sessions=False)
    assert done.restored.epoch == done.restored.epoch_before + RAISED_EPOCHS
    assert (target / "key").read_bytes() == (tmp_path / "d" / "key").read_bytes()
    assert (target / "tokens").read_text() == "hashes of tokens"
    engine = Engine(target, segment_bytes=4096).open()
    assert (engine.log.report.foreign, engine.log.report.copied_from) == ([], "")
    engine.close()


async def test_it_goes_into_an_empty_directory_and_no_other(shelf: Shelf, tmp_path: Path) -> None:
    target = tmp_path / "r"
    (target / "lost+found").mkdir(parents=True)
    brought(shelf.path, target)
    for taken in (target, tmp_path / "d", shelf.path):
        before = sorted(taken.rglob("*"))
        with pytest.raises(NotWritable, match=r"not empty|from back-up 1 before, and is whole"):
            bring_back(shelf, None, taken, FileOps(), new_sessions=False)
        assert sorted(taken.rglob("*")) == before


async def test_cut_short_at_any_call_no_server_starts_and_the_next_one_brings_it_about(
    shelf: Shelf, tmp_path: Path
) -> None:
    expected = numbers(said(tmp_path / "d"))
    calls, finished = 0, 0
    while True:
        calls += 1
        target, ops = tmp_path / f"r{calls}", CrashingOps(calls)
        try:
            bring_back(shelf, None, target, ops, new_sessions=False)
        except Crash:
            if (target / "restore-unfinished").exists() or (target / "restore-moving").exists():
                with pytest.raises(NotWritable, match="restore-"):
                    Engine(target, segment_bytes=4096).recover()
        else:
            break
        try:
            again = bring_back(shelf, None, target, FileOps(), new_sessions=False)
            finished += again.finished
        except NotWritable:  # it was whole, and only its last sync was missing
            assert not (target / "restore-moving").exists()
        assert numbers(said(target)) == expected
    assert calls > 30
    assert finished > 5


async def test_a_flipped_or_missing_file_is_found_and_nothing_is_restored(
    shelf: Shelf, tmp_path: Path
) -> None:
    manifest = shelf.manifest(None)
    assert not verify(shelf, manifest).wrong
    for index, file in enumerate(sorted(manifest.files)):
        path = shelf.path / file
        data = path.read_bytes()
        for spoilt in (data[:-1], bytes([data[0] ^ 1]) + data[1:], None):
            path.unlink() if spoilt is None else path.write_bytes(spoilt)
            assert verify(shelf, manifest).wrong
            with pytest.raises(BackupDamaged, match=file):
                brought(shelf.path, tmp_path / f"r{index}")
            assert not list((tmp_path / f"r{index}").iterdir())
        path.write_bytes(data)
    assert not verify(shelf, manifest).wrong


async def test_a_manifest_that_names_files_elsewhere_brings_nothing(
    shelf: Shelf, tmp_path: Path
) -> None:
    """Neither to be written nor to be read: whoever has made it would choose what is overwritten."""
    (path,) = shelf.path.glob("backup-*.json")
    made = json.loads(path.read_bytes())
    side = made["side_files"]["tokens"]
    (tmp_path / "copy").write_bytes((shelf.path / side["file"]).read_bytes())
    for side_files in (
        {"../../outside": side},
        {str(tmp_path / "outside"): side},
        {"tokens": side | {"file": "../copy"}},
    ):
        path.write_text(json.dumps(made | {"side_files": side_files}))
        with pytest.raises(BackupDamaged, match="cannot be read"):
            bring_back(shelf, None, tmp_path / "r", FileOps(), new_sessions=False)
        assert not (tmp_path / "outside").exists()


async def test_a_damaged_manifest_is_told_and_the_next_back_up_is_taken(
    shelf: Shelf, tmp_path: Path
) -> None:
    """Cut off, empty, of another kind, no text: the restore names it, and those that come later do not suffer."""
    (path,) = shelf.path.glob("backup-*.json")
    data = path.read_bytes()
    for spoilt in (data[:-20], b"", b"{}", b"\xff" + data):
        path.write_bytes(spoilt)
        with pytest.raises(BackupDamaged, match="cannot be read"):
            bring_back(shelf, None, tmp_path / "r", FileOps(), new_sessions=False)
    take(tmp_path / "d", shelf.path)
    assert shelf.manifest(None).number == 2
    assert shelf.unreadable == [path.name]
