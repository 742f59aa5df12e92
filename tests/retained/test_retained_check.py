"""`log check` of retained logs: what `check_logs` finds in their files."""

from __future__ import annotations

from pathlib import Path

from retained_world import append_each, frame_of

from minibrokerd.log.fileops import FileOps
from minibrokerd.retained.checking import check_logs
from minibrokerd.retained.files import RetainedFiles


def test_damage_is_found_and_a_torn_end_is_told_from_it(tmp_path: Path) -> None:
    """In whatever log and segment; nothing is changed."""
    assert list(check_logs(FileOps(), str(tmp_path / "none"))) == []
    for number in (3, 12):
        files = RetainedFiles(FileOps(), str(tmp_path / str(number)), segment_bytes=1_000)
        files.open()
        append_each(files, [frame_of(first, 2) for first in range(0, 60, 2)])
        files.sync()
        files.close()
    first, second = check_logs(FileOps(), str(tmp_path))
    assert (first.number, first.messages, second.number, second.messages) == (3, 60, 12, 60)
    assert not first.damages
    assert not first.torn
    *_, middle, newest = sorted((tmp_path / "12").glob("*.segment"))
    newest.write_bytes(newest.read_bytes()[:-1])
    data = bytearray(middle.read_bytes())
    data[70] ^= 1
    middle.write_bytes(data)
    _, second = check_logs(FileOps(), str(tmp_path))
    ((name, start, end),) = second.damages
    assert (name, start) == (middle.name, 0)
    assert start < 70 < end
    assert second.torn
    assert second.messages == 60 - 4
    data[10] ^= 1  # its head: nothing behind it is believed
    middle.write_bytes(data)
    _, second = check_logs(FileOps(), str(tmp_path))
    assert second.damages == [(middle.name, 0, len(data))]
