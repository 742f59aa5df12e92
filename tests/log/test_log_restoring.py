"""A back-up, or a copy: `log restore` keeps what is in it and raises every number, and a start tells a copy."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from damaged_world import bodies, start_of
from log_world import Engine
from make_vectors import VECTORS

from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.failures import DirectoryCopied
from minibrokerd.log.fileops import FileOps
from minibrokerd.rescue.checking import check
from minibrokerd.rescue.restoring import RAISED_EPOCHS, RAISED_IDS, RAISED_QUEUES, restore

KEPT = sorted(path.name for path in VECTORS.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", KEPT)
def test_what_is_in_it_stays_and_the_numbers_go_on_far_above(name: str, tmp_path: Path) -> None:
    """Closed or torn; and once more."""
    path = Path(shutil.copytree(VECTORS / name, tmp_path / "d"))
    path.chmod(0o700)
    then = json.loads((VECTORS / f"{name}.json").read_text())
    found, before = bodies(path), start_of(path)
    for times in (1, 2):
        restored = restore(DataDirectory(path, FileOps()), FileOps(), new_sessions=False)
        assert restored.queues == len(before.sequences)
        assert restored.epoch >= then["epoch"] + times * (RAISED_EPOCHS - 1)
        after = start_of(path)
        assert bodies(path) == found
        assert after.epoch > before.epoch
        assert after.next_queue_number >= before.next_queue_number + RAISED_QUEUES
        for queue, sequence in before.sequences.items():
            assert after.sequences[queue] >= sequence + RAISED_IDS
        before = after
    checked = check(DataDirectory(path, FileOps()), FileOps())
    assert (checked.whole, checked.clean) == (True, True)


@pytest.mark.parametrize("new_sessions", [False, True])
async def test_sessions_go_on_unless_the_original_does(new_sessions: bool, tmp_path: Path) -> None:
    path = tmp_path / "d"
    Engine(path).open().close()
    key = (path / "key").read_bytes()
    directory = DataDirectory(path, FileOps())
    await asyncio.to_thread(restore, directory, FileOps(), new_sessions=new_sessions)
    assert ((path / "key").read_bytes() == key) is not new_sessions


async def test_a_copy_of_a_directory_in_use_is_refused_until_it_is_its_own(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    engine = Engine(original).open()
    shutil.copytree(original, copy)
    with pytest.raises(DirectoryCopied, match="log restore --data-dir") as caught:
        Engine(copy).recover()
    assert (caught.value.exit_code, caught.value.original) == (75, str(original))
    restore(DataDirectory(copy, FileOps()), FileOps(), new_sessions=False)
    again = Engine(copy).open()
    assert again.log.report.copied_from == ""
    again.close()
    engine.close()


async def test_a_copy_whose_original_rests_starts_and_says_so_once(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    Engine(original).open().close()
    shutil.copytree(original, copy)
    for told in (str(original), ""):
        engine = Engine(copy).open()
        assert engine.log.report.copied_from == told
        engine.close()


async def test_a_directory_that_was_moved_is_no_copy(tmp_path: Path) -> None:
    """Also while another one runs under its old name."""
    old, new = tmp_path / "old", tmp_path / "new"
    Engine(old).open().close()
    old.rename(new)
    other = Engine(old).open()
    engine = Engine(new).open()
    assert engine.log.report.copied_from == ""
    engine.close()
    other.close()
