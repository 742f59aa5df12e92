"""The tail of a publish: columns, lengths and blob as they came, three msgpack bins back to back.

The log keeps it, extents are made of it, deliveries are cut out of it; nothing in it is ever decoded.
"""

from __future__ import annotations

from typing import Final

from minibrokerd.core.model.extents import BadTail

LENGTHS_BYTES: Final = 8  # of the headers and of the body of a message, 4 each
_BIN_BYTES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}  # msgpack bin 8, 16, 32: the size of the length
_PLAIN: Final = b"\xc4\x00\xc4"  # no columns, and lengths of less than 256 bytes
_SHORT: Final = (0xC4, 0xC5)


def split_bins(data: memoryview, count: int) -> list[memoryview]:
    """Return the contents of `count` bins that fill `data`.

    Raises:
        BadTail: as its name says; nothing was allocated for what the bins claim.
    """
    return [data[start:end] for start, end in bin_bounds(data, count)]


def sizes_in(tail: bytes) -> tuple[int, int]:
    """Return how many bytes the lengths and the blob of a tail have.

    Raises:
        BadTail: as `split_bins`.
    """
    # One message, or a few, without columns: what is read back frame by frame, if each has no more.
    if tail.startswith(_PLAIN):
        at = len(_PLAIN) + 1
        blob_at = at + tail[at - 1]
        head = tail[blob_at : blob_at + 3]
        if len(head) == 3 and head[0] in _SHORT:
            width = _BIN_BYTES[head[0]]
            blob_bytes = int.from_bytes(head[1 : 1 + width], "big")
            if blob_at + 1 + width + blob_bytes == len(tail):
                return blob_at - at, blob_bytes
    _, (start, stop), (blob_at, end) = bin_bounds(memoryview(tail), 3)
    return stop - start, end - blob_at


def bin_bounds(data: memoryview, count: int) -> list[tuple[int, int]]:
    """Return where the content of each of `count` bins that fill `data` starts and ends.

    Raises:
        BadTail: as its name says.
    """
    bounds = []
    at, size = 0, len(data)
    for _ in range(count):
        width = _BIN_BYTES.get(data[at]) if at < size else None
        if width is None or at + 1 + width > size:
            raise BadTail(f"no bin starts at byte {at} of {size}")
        start = at + 1 + width
        at = start + int.from_bytes(data[at + 1 : start], "big")
        if at > size:
            raise BadTail(
                f"the bin before byte {start} claims {at - start} bytes; {size - start} are left"
            )
        bounds.append((start, at))
    if at != size:
        raise BadTail(f"{size - at} bytes follow the last bin")
    return bounds
