"""Logs of old releases are read by this one: tests/vectors/ has them, and what a start found in them then."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from damaged_world import Start, bodies, segments, start_of, write
from make_vectors import VECTORS, expected

from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.fileops import FileOps
from minibrokerd.rescue.checking import check

KEPT = sorted(path for path in VECTORS.iterdir() if path.is_dir())


@pytest.fixture(params=KEPT, ids=lambda path: path.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an old data directory, private as a server makes it."""
    path = Path(shutil.copytree(request.param, tmp_path / request.param.name))
    path.chmod(0o700)
    return path


def test_there_are_vectors() -> None:
    """Closed and torn: of the first release, of the first with terms of messages, and of whole lives."""
    names = {path.name for path in KEPT}
    kinds = ("log-1", "log-2", "lived-2")
    assert {f"{kind}-{end}" for kind in kinds for end in ("closed", "torn")} <= names


def test_an_old_log_is_found_as_it_was_left(old: Path) -> None:
    """The same messages, byte for byte, and no number is given again."""
    then = json.loads((VECTORS / f"{old.name}.json").read_text())
    assert expected(old) == then
    checked = check(DataDirectory(old, FileOps()), FileOps())
    assert (checked.whole, checked.damages, checked.clean) == (
        True,
        [],
        old.name.endswith("closed"),
    )
    assert len(checked.torn) == old.name.endswith("torn")
    assert len(segments(old)) >= 3


def test_an_old_log_goes_on_under_this_release(old: Path) -> None:
    """Started, closed, and read again: nothing is lost by the change of release."""
    found, before = bodies(old), start_of(old)
    asyncio.run(write(old, [], segment_bytes=4_096, closed=True))
    assert bodies(old) == found
    after = start_of(old)
    assert after == Start(before.epoch + 1, before.next_queue_number, before.sequences)
