"""What is fuzzed: each target takes any bytes at all, and raises nothing but what is promised.

A target returns the time of its decoder in seconds of this thread; what comes behind the decoder (the core, the
replay) is run too, but not timed: a legal frame may ask for more. What a target raises is a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from time import thread_time
from typing import Final
from zlib import crc32

from core_client import Client
from disk_world import StraightLog
from harness import START_UNIX_MS, World

from minibroker.contract import limits, wire
from minibroker.contract.errors import ProtocolError
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.records import UnknownRecord
from minibrokerd.log import format as layout
from minibrokerd.log.directory import SegmentName
from minibrokerd.log.failures import LogError
from minibrokerd.log.seam import BATCH_HEADER_BYTES, RECORD_HEAD_BYTES, Batch
from minibrokerd.net.frames import BadFrame, read_frame
from support.simulated_disk import File, SimulatedDisk

APPLIES: Final = 500  # frames that one broker gets, so that its state stays small
SEGMENT_BYTES: Final = 16 * 1024
_U32: Final = Struct("<I")

Target = Callable[[bytes], float]


class Server:
    """The server's frame decoder, both its forms; what it takes goes to a core."""

    def __init__(self) -> None:
        self._world = World()
        self._client: Client | None = None
        self._applied = 0

    def __call__(self, data: bytes) -> float:
        """Decode a payload, and apply it."""
        began_s = thread_time()
        frame = self._decode(data)
        taken_s = thread_time() - began_s
        view = self._decode(memoryview(data))
        # Of a view the counts are looked at here, of bytes by the core: only what both take can be compared.
        if frame is not None and view is not None:
            assert _sums(frame) == _sums(view)
            self._apply(data)
        return taken_s

    @staticmethod
    def _decode(data: bytes | memoryview) -> Frame | None:
        try:
            return read_frame(data, 1, 0.0)
        except BadFrame:
            return None

    def _apply(self, data: bytes) -> None:
        if self._client is None or self._client.closed or self._applied >= APPLIES:
            self._world, self._applied = World(), 0
            self._client = self._world.hello()
            self._client.set("q")
        self._applied += 1
        frame = read_frame(data, self._client.connection, 0.0)
        row = frame.parts[0].row
        if row.login is None and row.op not in ("ping", "goodbye"):
            self._world.apply(frame)
            self._client.inbox.clear()


def _sums(frame: Frame) -> tuple[int, int | None]:
    return frame.checksum, frame.extent.checksum if frame.extent is not None else None


def client(data: bytes) -> float:
    """The client's frame reader, fed whole and byte by byte, and its columns."""
    began_s = thread_time()
    whole = _read(data, len(data) or 1)
    taken_s = thread_time() - began_s
    if len(data) < 256:
        assert _read(data, 1) == whole, "the cuts between reads change what is read"
    for count in (0, 1, 3, len(data) // 4):
        try:
            _, used = wire.unpack_strings(data, count)
            assert used <= len(data)
        except ProtocolError:
            continue
    return taken_s


def _read(data: bytes, chunk_bytes: int) -> tuple[list[tuple[object, ...]], bool]:
    reader = wire.FrameReader(limits.MAX_FRAME_BYTES)
    frames: list[tuple[object, ...]] = []
    try:
        for at in range(0, len(data), chunk_bytes):
            for frame in reader.feed(data[at : at + chunk_bytes]):
                frames.append((repr(frame.header), frame.columns, frame.lengths, frame.blob))
    except ProtocolError:
        return frames if chunk_bytes == 1 else _good(data), True
    return frames, False


def _good(data: bytes) -> list[tuple[object, ...]]:
    """Return the frames before the one that breaks the stream; a whole read does not tell them."""
    frames: list[tuple[object, ...]] = []
    at = 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        try:
            frame = wire.read_payload(data[at + 4 : end])
        except ProtocolError:
            break
        if end > len(data):
            break
        frames.append((repr(frame.header), frame.columns, frame.lengths, frame.blob))
        at = end
    return frames


def log(data: bytes) -> float:
    """The log reader: the bytes as the only segment of a directory, as they are and with checksums that hold."""
    taken_s = _recover(data)
    _recover(signed(data))
    return taken_s


def _recover(data: bytes) -> float:
    number = max(int.from_bytes(data[44:48], "little") % 2**31, 1)
    generation = int.from_bytes(data[48:52], "little") % 100_000
    disk = SimulatedDisk({str(SegmentName(number, generation)): File(data)})
    log = StraightLog(disk, SEGMENT_BYTES)
    batches: list[Batch] = []
    began_s = thread_time()
    try:
        batches.extend(log.batches())
    except LogError:
        return thread_time() - began_s
    taken_s = thread_time() - began_s
    disk.let_go()
    _replay(batches, log)
    return taken_s


def _replay(batches: list[Batch], log: StraightLog) -> None:
    core = Core(BodyStore())
    try:
        for batch in batches:
            core.replay(batch)
        core.opened(1, log.now_ms + 1, START_UNIX_MS, clean=log.clean)
    except UnknownRecord:
        return  # a record whose checksum holds and whose parts do not fit each other: the start is refused


def signed(data: bytes) -> bytes:
    """Return a segment with every checksum put right, as far as its batches can be followed."""
    changed, at = bytearray(data), 0
    while changed[at : at + 4] == layout.MAGIC and at + BATCH_HEADER_BYTES <= len(changed):
        body = at + BATCH_HEADER_BYTES
        end = body + _U32.unpack_from(changed, at + 56)[0]
        if end > len(changed):
            break
        _U32.pack_into(changed, at + 64, _sign_records(changed, body, end))
        checksum = crc32(changed[at + 8 : at + BATCH_HEADER_BYTES])
        _U32.pack_into(changed, at + 4, checksum)
        at += layout.padded(end - at)
    return bytes(changed)


def _sign_records(data: bytearray, at: int, end: int) -> int:
    """Put the checksums of the records right; return that of their heads."""
    heads = 0
    while end - at >= RECORD_HEAD_BYTES:
        payload_bytes, meta_bytes = Struct("<II").unpack_from(data, at)
        payload = at + RECORD_HEAD_BYTES
        meta_end = payload + min(meta_bytes, payload_bytes)
        stop = min(payload + payload_bytes, end)
        checksum = crc32(data[payload:meta_end], crc32(data[meta_end:stop]))
        _U32.pack_into(data, at + 12, checksum)
        heads = crc32(data[at:payload], heads)
        at = stop
    return heads


def make(name: str) -> Target:
    """Return a fresh target by its name."""
    return Server() if name == "server" else {"client": client, "log": log}[name]


NAMES: Final = ("server", "client", "log")
