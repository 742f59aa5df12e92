"""Which release may read a log: each segment says it, by what its log had when it began."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import pytest
from log_world import Engine

from minibrokerd.core.model.records import RECORD_TYPES
from minibrokerd.log import format as layout
from minibrokerd.log.log_versions import FORMAT_VERSION, LOG_VERSIONS, version_of
from minibrokerd.log.seam import Record

SMALL = 4096
NEW = LOG_VERSIONS[-1].first_type


def versions(path: Path) -> list[int]:
    """Return what each segment of a log says."""
    said = []
    for segment in sorted(path.glob("segment-*.log")):
        data = segment.read_bytes()
        header = layout.decode_header(data, 0)
        assert header is not None
        info = layout.decode_segment_info(layout.decode_records(data, 0, header) or ())
        assert info is not None
        said.append(info.format_version)
    return said


async def fill(engine: Engine, path: Path, type_: int) -> None:
    """Append records of a type until another segment begins."""
    count = len(versions(path))
    tail = bytes(900)
    while len(versions(path)) == count:
        batch = engine.batch(b"")
        batch.records[0] = Record(type_, b"\x90", tail, crc32(tail))
        engine.news.clear()
        engine.hand(batch)
        await engine.news.wait()


async def test_a_log_says_the_new_version_from_the_segment_behind_the_first_new_record(
    tmp_path: Path,
) -> None:
    path = tmp_path / "d"
    engine = Engine(path, segment_bytes=SMALL).open()
    await fill(engine, path, NEW - 1)
    assert versions(path) == [FORMAT_VERSION - 1] * 2
    engine.close()
    engine = Engine(path, segment_bytes=SMALL).open()
    await fill(engine, path, NEW)
    assert versions(path) == [FORMAT_VERSION - 1] * 2 + [FORMAT_VERSION]
    await fill(engine, path, NEW - 1)
    engine.close()
    engine = Engine(path, segment_bytes=SMALL).open()
    await fill(engine, path, NEW - 1)
    assert versions(path) == [FORMAT_VERSION - 1] * 2 + [FORMAT_VERSION] * 3
    engine.close()


@pytest.mark.parametrize("type_", RECORD_TYPES)
def test_every_type_of_record_has_its_version(type_: int) -> None:
    """A new type belongs to a version that is not released yet: to the last row, or to one more."""
    assert type_ <= 19
    assert version_of(type_) == (1 if type_ < 14 else 2)


def test_versions_and_their_first_types_go_up() -> None:
    numbers = [row.version.number for row in LOG_VERSIONS]
    assert numbers == list(range(1, len(numbers) + 1))
    assert sorted({row.first_type for row in LOG_VERSIONS}) == [
        row.first_type for row in LOG_VERSIONS
    ]
