"""The columns and spans of a publish: out of a frame, or out of the log; the sizes of its messages.

Nothing is believed: a column that is short, long or out of range breaks the frame, before anything is changed.
"""

from __future__ import annotations

from array import array
from itertools import groupby
from operator import sub
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.commands import COMMANDS
from minibroker.contract.errors import ProtocolError
from minibroker.contract.wire import unpack_strings
from minibrokerd.core.model.extents import BadTail, Extent, Sizes
from minibrokerd.core.model.messages import Block, Span
from minibrokerd.core.model.refusals import Broken, Refused

COLUMNS: Final = COMMANDS["publish"].columns
# Of a message; the text of a key or an id is beside that.
_BYTES_OF: Final = {"delay_ms": 8, "key": 4, "encoding": 1, "unique_key": 4, "dedupe_id": 4}
_TEXTS: Final = frozenset({"key", "unique_key", "dedupe_id"})


def check_sizes(extent: Extent, count: int, most_bytes: int = limits.MAX_MESSAGE_BYTES) -> Sizes:
    """Return the sizes of `count` messages of `most_bytes` at the most, which have all bytes of an extent.

    Raises:
        Broken: they have not, and the stream cannot be trusted.
        Refused: `too_large`, one message is larger than the limit.
    """
    if not 1 <= count <= limits.MAX_MESSAGES_PER_FRAME:
        raise Broken(
            f"a publish of {count} messages; 1 to {limits.MAX_MESSAGES_PER_FRAME} are allowed"
        )
    try:
        size, starts = sizes = extent.sizes(count)
    except BadTail as error:
        raise Broken(str(error)) from error
    if starts is not None and extent.size > most_bytes:
        size = max(map(sub, starts[1:], starts))
    if size > most_bytes:
        raise Refused(
            "too_large",
            f"a message of {size} bytes exceeds {most_bytes}; "
            "store the data elsewhere and publish its place",
        )
    return sizes


def slice_of_publish(part: Any, columns: memoryview, lengths: memoryview) -> tuple[int, int, int]:
    """Return how many bytes of columns, lengths and blob a publish takes, which start these columns and lengths.

    Raises:
        Broken: they are shorter than that.
    """
    count = part.count
    if count > limits.MAX_MESSAGES_PER_FRAME:
        raise Broken(f"a publish of {count} messages")
    used = 0
    for name in part.columns:
        if name in _TEXTS:
            key_bytes = array("I")
            key_bytes.frombytes(_exactly(columns, used, used + 4 * count))
            used += sum(key_bytes)
        used += _BYTES_OF.get(name, 0) * count
    sizes = array("I")
    sizes.frombytes(_exactly(lengths, 0, 8 * count))
    _exactly(columns, 0, used)
    return used, 8 * count, sum(sizes)


def read_columns(part: Any, column_bytes: memoryview, count: int) -> dict[str, Any]:
    """Return the publish columns that the part names: delays (array), texts (list of str), encodings (bytes).

    Raises:
        Broken: a column is unknown, twice there, too short, too long, or has a value out of range.
    """
    columns: dict[str, Any] = {}
    at = 0
    for name in part.columns:
        if name in columns:
            raise Broken(f"the column {name!r:.100} is named twice")
        at = _read_column(columns, name, column_bytes, at, count)
    if at != len(column_bytes):
        raise Broken(f"the columns have {len(column_bytes)} bytes, {at} are accounted for")
    return columns


def _read_column(columns: dict[str, Any], name: str, data: memoryview, at: int, count: int) -> int:
    if name == "delay_ms":
        end = at + 8 * count
        delays = array("Q")
        delays.frombytes(_exactly(data, at, end))
        if max(delays) > limits.MAX_DELAY_MS:
            raise Broken(f"a delay of {max(delays)} ms exceeds {limits.MAX_DELAY_MS}")
        columns[name] = delays
    elif name == "encoding":
        end = at + count
        columns[name] = bytes(_exactly(data, at, end))
        if max(columns[name]) > 1:
            raise Broken(f"there is no encoding {max(columns[name])}")
    elif name in _TEXTS:
        columns[name], used = _read_texts(data[at:], count, name)
        end = at + used
    else:
        raise Broken(f"publish has no column {name!r:.100}")
    return end


def _exactly(data: memoryview, at: int, end: int) -> memoryview:
    if end > len(data):
        raise Broken(f"a column ends at byte {end}, but the columns have {len(data)} bytes")
    return data[at:end]


def _read_texts(data: memoryview, count: int, name: str) -> tuple[list[str], int]:
    lengths = array("I")
    lengths.frombytes(_exactly(data, 0, 4 * count))
    if max(lengths) > limits.MAX_KEY_BYTES:  # before a byte of it is copied
        raise Broken(f"a value of {name} exceeds {limits.MAX_KEY_BYTES} bytes")
    try:
        keys, used = unpack_strings(data, count)
        return [key.decode() for key in keys], used
    except (ProtocolError, UnicodeDecodeError) as error:
        raise Broken(f"the column {name} is wrong: {error}") from error


def spans_of(block: Block, delay_ms: int, key: str, columns: dict[str, Any]) -> list[Span]:
    """Return the messages of a block as spans, each with one key and one delay."""
    first, ready_at_ms = block.first, block.ready_at_ms
    delays, keys = columns.get("delay_ms"), columns.get("key")
    if delays is None and keys is None:
        return [Span(block, first, first + block.count, key, ready_at_ms + delay_ms)]
    values = zip(delays or [delay_ms] * block.count, keys or [key] * block.count, strict=True)
    spans = []
    for (delay, name), group in groupby(values):
        stop = first + sum(1 for _ in group)
        # A sum would be a number of its own for each message.
        spans.append(Span(block, first, stop, name, ready_at_ms + delay if delay else ready_at_ms))
        first = stop
    return spans
