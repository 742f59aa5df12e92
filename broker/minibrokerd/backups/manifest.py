"""What a back-up consists of, in one small file that is written last: whatever has no manifest is no back-up.

Files of segments are named by what is in them and never written twice, so nothing that a manifest names is
touched while that manifest is there.
"""

from __future__ import annotations

from typing import Final

import msgspec

from minibrokerd.log.directory import SegmentName

FORMAT: Final = 2  # 2: with segments of retained logs
HASH_DIGITS: Final = 16  # of a sha256 in the name of a file


class Segment(msgspec.Struct, frozen=True):
    """One segment of a back-up: its file, and what of its content says that it fits between others.

    `bytes` count, of a file of `size_bytes` in the data directory; what follows them there is zero, or came later.
    `head` is the crc32 of the first batch: two segments of one name in two lives of a log differ there.
    """

    file: str
    number: int
    generation: int
    size_bytes: int
    bytes: int
    sha256: str
    head: int
    last: int
    last_checksum: int
    previous: int
    previous_checksum: int
    log_start: int
    epoch: int

    @property
    def name(self) -> SegmentName:
        """The name in the data directory."""
        return SegmentName(self.number, self.generation)


class SideFile(msgspec.Struct, frozen=True):
    """A small file of the data directory beside the log: the session key, the tokens."""

    file: str
    sha256: str


class RetainedSegment(msgspec.Struct, frozen=True):
    """One segment of a retained log: of which log, its name there, its file here.

    `ends` is the crc32 of its first and last bytes, in which segments of one name in two lives of a log differ.
    """

    log: int
    name: str
    file: str
    bytes: int
    sha256: str
    ends: int


class Manifest(msgspec.Struct, frozen=True):
    """One back-up: the log up to batch `batch`, as it was at one moment after `began_unix_ms`."""

    format: int
    number: int
    version: str
    store: str
    source: str
    batch: int
    epoch: int
    began_unix_ms: int
    ended_unix_ms: int
    segments: list[Segment]
    side_files: dict[str, SideFile]
    retained: list[RetainedSegment] = []

    @property
    def bytes(self) -> int:
        """The bytes of all its segments."""
        log, retained = self.segments, self.retained
        return sum(each.bytes for each in log) + sum(each.bytes for each in retained)

    @property
    def files(self) -> dict[str, str]:
        """The names of all files that it needs, each with its sha256."""
        found = {each.file: each.sha256 for each in self.segments}
        found |= {each.file: each.sha256 for each in self.retained}
        return found | {each.file: each.sha256 for each in self.side_files.values()}


def encode(manifest: Manifest) -> bytes:
    """Return the content of a manifest's file."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode(data: bytes) -> Manifest:
    """Return the manifest that `data` spells.

    Raises:
        ValueError: it is none, or one of a newer release, or names a file in another directory.
    """
    version = msgspec.json.decode(data, type=_Format).format
    if version > FORMAT:
        raise ValueError(f"it has format {version}, this release knows {FORMAT}")
    manifest = msgspec.json.decode(data, type=Manifest)
    names = [each.name for each in manifest.retained]
    for name in (*manifest.files, *manifest.side_files, *names):
        if "/" in name or "\0" in name or name in ("", ".", ".."):
            raise ValueError(f"it names {name!r:.100}, which is no file beside it")
    return manifest


class _Format(msgspec.Struct):
    format: int
