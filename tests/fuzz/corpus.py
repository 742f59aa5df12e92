"""The small corpus that is kept in the repository, one folder for each target; run it to write the files again.

Frames are the golden vectors; logs are segments of recorded work, and one with a record of every type.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import frame_octets
from disk_world import Content, content_of
from targets import SEGMENT_BYTES, signed
from workloads import record

from minibrokerd.core.model.records import (
    RECORD_TYPES,
    CopyPartMeta,
    CopySomeMeta,
    DamagedMeta,
    DropMeta,
    EndMeta,
    ExtendMeta,
    PurgeMeta,
    StateMeta,
)
from minibrokerd.core.model.records import record as state
from minibrokerd.log import format as layout
from minibrokerd.log.format import Header, Kind, Origin, SegmentInfo
from minibrokerd.log.log_versions import LOG_VERSIONS
from minibrokerd.log.seam import Record

HERE: Final = Path(__file__).parent / "corpus"
FROM_SERVER: Final = ("CONFIRM", "DELIVER", "PONG")


def built() -> dict[str, bytes]:
    """Return the files of the corpus by their paths."""
    files: dict[str, bytes] = {}
    for name, value in vars(frame_octets).items():
        if name.isupper() and isinstance(value, bytes) and value[4:5] == b"\x94":
            if name in FROM_SERVER:
                files[f"client/{name.lower()}"] = value
            else:
                files[f"server/{name.lower()}"] = value[4:]
    for number, content in enumerate(_logs(), 1):
        files[f"log/{number}"] = content
    return files


def _logs() -> list[bytes]:
    """Return logs of one segment that together have a record of every type."""
    some: list[Content] = []
    for name, seed in (("mixed", 1), ("freeing", 1), ("everything", 2)):
        some += record(name, seed).appended
    logs, wanted = [], set(RECORD_TYPES)
    batches: list[Content] = []
    for content in some:
        types = {type_ for type_, _, _ in content}
        if types & wanted or len(batches) < 2:
            wanted -= types
            batches.append(content)
    rare = (
        ExtendMeta(1, 7, 7, 1, 0, 1, 30_000, 1),
        DamagedMeta(1, 0, 1, 1, 88, 1),
        PurgeMeta(2),
        DropMeta(2),
        EndMeta(7, 3, True),
        StateMeta(1, (8,), (3, 1), 0),
    )
    # One message of a publish whose encodings differ: columns, lengths, bodies.
    tail = b"\xc4\x01\x01" + b"\xc4\x08" + (1).to_bytes(8, "little") + b"\xc4\x01x"
    part = CopyPartMeta(1, 1, 1, 1, 1, 1, 2, 0, "", 0, columns=["encoding"])
    others = CopySomeMeta(
        1, 2, 3, 1, 1, 1, 2, 0, "", 0, living=b"\x05"
    )  # the one in the middle has ended
    lengths = b"".join(size.to_bytes(8, "little") for size in (1 << 32, 0, 1 << 32))
    copied = state(part, tail), state(others, b"\xc4\x00\xc4\x18" + lengths + b"\xc4\x02xy")
    batches.append(content_of([*(state(meta) for meta in rare), *copied]))
    logs.append(segment(batches))
    logs.append(segment(some[:6]))
    return logs


def segment(contents: list[Content]) -> bytes:
    """Return a first segment with these batches, up to the last byte that is not zero."""
    origin = Origin(bytes(16), 1, 1)
    info = SegmentInfo(LOG_VERSIONS[0].version.number, SEGMENT_BYTES, 1, 0, 0)
    data = _batch(origin, 1, Kind.SEGMENT, [info.record()])
    for number, content in enumerate(contents, 2):
        data += _batch(origin, number, Kind.DATA, [Record(*fields) for fields in content])
    return signed(data)


def _batch(origin: Origin, number: int, kind: Kind, records: list[Record]) -> bytes:
    body = layout.encode_body(records)
    header = Header(
        origin, number, number - 1, 1, kind, body.body_bytes, body.record_count,
        body.heads_checksum, 1_000 + number, 1_700_000_000_000,
    )  # fmt: skip
    return layout.encode_batch(header, body)


def main() -> None:
    """Write the files."""
    for name, data in built().items():
        (HERE / name).parent.mkdir(parents=True, exist_ok=True)
        (HERE / name).write_bytes(data)


if __name__ == "__main__":
    main()
