"""Frames as the server reads them: nothing in one is trusted, and nothing is allocated for what it claims.

A payload is four bins, read as views of it without a copy. Only the header is decoded, alone, at most
16 KiB of it, by a decoder that is made from the command table: a nested or unknown field fails on its first
byte (measured: a header that costs msgpack-python 44 MiB and 49 ms costs this one less than 0.5 MiB and
1 ms). Columns, lengths and blob stay the bytes that came. Pure: bytes in, values out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import add
from typing import Annotated, Any, Final, Union
from zlib import crc32

import msgspec

from minibroker.contract import limits
from minibroker.contract.commands import COMMANDS, REQUIRED, Command, Field, Kind
from minibrokerd.bodies.memory_extents import MemoryExtent, extent_of
from minibrokerd.core.model.columns import check_sizes, read_columns
from minibrokerd.core.model.inputs import NEEDS_ROOM, Frame, Slice
from minibrokerd.core.model.refusals import Broken, Refused
from minibrokerd.core.verbs.operations import OPERATIONS


class BadFrame(Exception):
    """A payload is not what protocol.md says; the connection that sent it cannot be used again."""


ARRAY_OF_4: Final = 0x94  # how every payload starts
# What stands in front of the header: that, and the head of a bin, which has its length in 1, 2 or 4 bytes.
_HEAD_BYTES: Final = {0xC4: 3, 0xC5: 4, 0xC6: 6}
_PLAIN: Final[Mapping[Kind, Any]] = {
    Kind.STR: str,  # its limit counts characters here; bytes where they matter: keys, names of queues
    Kind.BYTES: bytes,
    Kind.MAP: dict[str, int | str],
    Kind.NAMES: list[str],
}


_FACTORIES: Final[Mapping[Kind, Any]] = {Kind.MAP: dict, Kind.NAMES: list}


def _type_of(field: Field) -> Any:
    plain: Any
    if field.kind is Kind.INT:
        plain = Annotated[int, msgspec.Meta(ge=0, le=min(field.high, 2**63 - 1))]
    else:
        plain = Annotated[_PLAIN[field.kind], msgspec.Meta(max_length=field.high)]
    return plain | None if field.default is None else plain


def _struct_of(command: Command) -> type:
    fields: list[Any] = []
    for field in command.fields:
        if field.default is REQUIRED:
            fields.append((field.name, _type_of(field)))
        elif field.kind in _FACTORIES:
            factory = _FACTORIES[field.kind]
            fields.append((field.name, _type_of(field), msgspec.field(default_factory=factory)))
        else:
            fields.append((field.name, _type_of(field), field.default))
    return msgspec.defstruct(
        "Part_" + command.op,
        fields,
        kw_only=True,
        tag_field="op",
        tag=command.op,
        forbid_unknown_fields=True,
        gc=False,
    )


PARTS: Final[Mapping[str, type]] = {op: _struct_of(row) for op, row in COMMANDS.items()}
for _op, _part in PARTS.items():
    # What is done about a part is asked of its row.
    _part.row = OPERATIONS[_op]  # type: ignore[attr-defined]

_Header = msgspec.defstruct(
    "Header",
    [
        (
            "parts",
            Annotated[
                list[Union[tuple(PARTS.values())]],  # type: ignore[misc]  # noqa: UP007  # made from the table
                msgspec.Meta(min_length=1, max_length=limits.MAX_PARTS_PER_FRAME),
            ],
        ),
        ("request", Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] | None, None),
        ("sequence", Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None, None),
        ("answered_below", Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)], 1),
        ("step", Annotated[int, msgspec.Meta(ge=0, le=1)], 0),
        ("waits", Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] | None, None),
    ],
    forbid_unknown_fields=True,
    gc=False,
)
_Bins = tuple[memoryview, memoryview, memoryview, memoryview]
_decode_payload: Final[Callable[[bytes | memoryview], _Bins]] = msgspec.msgpack.Decoder(
    _Bins
).decode
_decode_header: Final[Callable[[memoryview], Any]] = msgspec.msgpack.Decoder(_Header).decode


def read_frame(payload: bytes | memoryview, connection: int, jitter: float) -> Frame:
    """Return the frame in a payload (the bytes behind the length prefix) as a command for the core.

    What the log keeps of a frame is a copy of its own without the header; of a payload that is a view (a
    large one) nothing is copied.

    Raises:
        BadFrame: the payload breaks the protocol; the text says where.
    """
    try:
        header_bytes, columns, lengths, blob = _decode_payload(payload)
    except msgspec.DecodeError as error:
        raise BadFrame(f"a payload must be one msgpack array of four bins: {error}") from error
    if payload[0] != ARRAY_OF_4:  # the decoder also takes its longer forms
        raise BadFrame("a payload starts with 0x94, the short form of an array of four")
    header = read_header(header_bytes)
    if header.sequence is not None and header.request is not None:
        raise BadFrame("a frame has a sequence or a request number, not both")
    parts = header.parts
    needs: int = parts[0].row.needs
    slices: Sequence[Slice] = ()
    is_step = False
    if len(parts) > 1 or header.step:
        needs = max(part.row.needs for part in parts)
        slices = _cut(parts, columns, lengths, blob)
        is_step = needs == NEEDS_ROOM or header.step == 1
    if (lengths or blob) and needs != NEEDS_ROOM:
        raise BadFrame("only a publish carries lengths and a blob")
    extent: MemoryExtent | None = None
    checksum = 0
    if header.sequence is not None:
        tail = payload[_HEAD_BYTES[payload[1]] + len(header_bytes) :]
        if needs == NEEDS_ROOM and len(parts) == 1:
            extent = MemoryExtent(tail, 0, len(lengths), len(blob))
        if isinstance(payload, bytes) or _adds_up(parts, columns, extent):
            # Both sums in one pass: the tail's goes to the log, and is the start of the frame's own.
            tail_checksum = crc32(tail)
            checksum = crc32(header_bytes, tail_checksum)
            if extent is not None:
                extent.checksum = tail_checksum
    return Frame(
        connection,
        parts,
        columns,
        header.request,
        header.sequence,
        header.answered_below,
        extent,
        checksum,
        len(payload),
        jitter,
        needs,
        slices,
        is_step,
        header.waits,
    )


def _cut(
    parts: Sequence[Any], columns: memoryview, lengths: memoryview, blob: memoryview
) -> list[Slice]:
    """Give each of several parts its own of columns, lengths and blob; nothing may be left."""
    sizes, ends = [], (0, 0, 0)
    for part in parts:
        row = part.row
        if row.slices is None:
            raise BadFrame(f"{row.op} must be the only part of its frame")
        try:
            size = row.slices(part, columns[ends[0] :], lengths[ends[1] :])
        except Broken as error:
            raise BadFrame(str(error)) from error
        sizes.append(size)
        ends = tuple(map(add, ends, size))
    came = len(columns), len(lengths), len(blob)
    if ends != came:
        raise BadFrame(
            f"columns, lengths and blob have {came} bytes, the parts of the frame take {ends}"
        )
    slices = []
    at = 0, 0, 0
    for part, size in zip(parts, sizes, strict=True):
        end = tuple(map(add, at, size))
        own = Slice(columns[at[0] : end[0]])
        if part.row.needs == NEEDS_ROOM:  # the log has it apart from the others
            own.extent = extent_of(own.columns, lengths[at[1] : end[1]], blob[at[2] : end[2]])
            own.size = own.extent.size
        slices.append(own)
        at = end
    return slices


def _adds_up(parts: Sequence[Any], columns: memoryview, extent: MemoryExtent | None) -> bool:
    """Before 16 MiB are summed: do the counts add up? False: the core will refuse the frame."""
    if extent is None:
        if sum(getattr(part, "runs", 0) for part in parts) > limits.MAX_RUNS_PER_FRAME:
            raise BadFrame(f"a frame has more than {limits.MAX_RUNS_PER_FRAME} runs")
        return True  # those of several parts were cut, which adds them up
    try:
        check_sizes(extent, parts[0].count)
        read_columns(parts[0], columns, parts[0].count)
    except Broken as error:
        raise BadFrame(str(error)) from error
    except Refused:
        return False
    return True


def read_header(data: memoryview) -> Any:
    """Return the header struct: `parts`, `request`, `sequence`, `answered_below`, `step`, `waits`.

    Raises:
        BadFrame: it is too long, not msgpack, or not in the command table.
    """
    if len(data) > limits.MAX_HEADER_BYTES:
        raise BadFrame(f"a header of {len(data)} bytes exceeds {limits.MAX_HEADER_BYTES}")
    try:
        header = _decode_header(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadFrame(f"the header is not what the command table allows: {error}") from error
    return header
