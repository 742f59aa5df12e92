"""Single records read back: what the disk does not give back is said to be damaged, and what it gave is kept."""

from __future__ import annotations

import errno
from pathlib import Path

from log_world import NOW_MS, SEGMENT_BYTES, UNIX_MS, record

from minibrokerd.log.filelog import FileLog
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.seam import Batch, Place

BODIES = [b"one" * 40, b"two" * 40, b"three" * 40]


class LostSector(FileOps):
    """Fails to read whatever has the byte at `lost`."""

    lost = -1

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """Read, unless the lost byte is among it."""
        if offset <= self.lost < offset + size_bytes:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(descriptor, size_bytes, offset)


def written(path: Path, ops: FileOps) -> tuple[FileLog, list[Place]]:
    """Return a log with a batch of three records, and where they stand."""
    log = FileLog(path, segment_bytes=SEGMENT_BYTES, ops=ops)
    assert list(log.recover()) == []
    log.lead(NOW_MS, UNIX_MS, print, lambda: None, print)
    records = [record(body) for body in BODIES]
    batch = Batch(log.next_number, records, NOW_MS, UNIX_MS)
    assert log.append(batch, batch.number - 1, 20_000_000)
    place = log.last_place
    assert place is not None
    places = [place]
    for one in records[:-1]:
        places.append(Place(place.segment, places[-1].offset + one.size_bytes))
    return log, places


async def test_a_sector_that_cannot_be_read_is_damage_of_its_record(tmp_path: Path) -> None:
    """Reading it to keep it aside fails, too; asked again for ever, the queue would stand still."""
    ops = LostSector()
    log, places = written(tmp_path / "log", ops)
    ops.lost = places[1].offset + 30
    found = log.read(places[0].segment, [place.offset for place in places])
    assert [one and bytes(one.tail) for one in found] == [BODIES[0], None, BODIES[2]]
    log.abandon()


async def test_a_record_that_does_not_verify_is_kept_aside(tmp_path: Path) -> None:
    """As it is, so that it can be looked at."""
    log, places = written(tmp_path / "log", FileOps())
    segment = next((tmp_path / "log").glob("segment-*.log"))
    with segment.open("r+b") as file:
        file.seek(places[1].offset + 30)
        file.write(b"#")
    found = log.read(places[0].segment, [place.offset for place in places])
    assert [one and bytes(one.tail) for one in found] == [BODIES[0], None, BODIES[2]]
    kept = (tmp_path / "log" / f"damaged-1-{places[1].offset}.bin").read_bytes()
    assert kept[30:31] == b"#"
    assert len(kept) == places[2].offset - places[1].offset
    log.abandon()
