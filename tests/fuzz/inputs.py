"""Inputs with a structure: what is kept in the corpus, changed in the places where it matters."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import msgpack
from hypothesis import strategies as st

from minibroker.contract import wire
from minibroker.contract.commands import COMMANDS

EDGES: Final = (0, 1, 0x7F, 0x80, 0xFF, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
VALUES: Final = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.text(max_size=8), st.binary(max_size=8), st.none(),
    st.floats(), st.lists(st.integers(0, 9), max_size=3), st.just({}), st.sampled_from(EDGES),
)  # fmt: skip


def inputs(name: str, corpus: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return inputs for a target: its corpus changed, and frames with fields of all kinds."""
    changed = st.builds(
        change, st.sampled_from(list(corpus)), st.lists(EDITS, min_size=1, max_size=6)
    )
    if name == "server":
        return changed | st.builds(lambda data: data[4:], frames())
    return changed | st.lists(frames(), max_size=3).map(b"".join) if name == "client" else changed


EDITS: Final = st.tuples(
    st.sampled_from(["flip", "set", "word", "cut", "drop", "double"]),
    st.integers(0, 2**16),
    st.sampled_from(EDGES) | st.integers(0, 255),
)


def change(data: bytes, edits: Sequence[tuple[str, int, int]]) -> bytes:
    """Return the data after some edits, each of a kind, a place and a value."""
    changed = bytearray(data)
    for kind, place, value in edits:
        at = place % (len(changed) + 1)
        if kind == "flip" and at < len(changed):
            changed[at] ^= 1 << value % 8
        elif kind == "set" and at < len(changed):
            changed[at] = value % 256
        elif kind == "word":
            changed[at : at + 4] = struct.pack("<I", value % 2**32)
        elif kind == "cut":
            del changed[at:]
        elif kind == "drop":
            del changed[at : at + value % 16]
        elif kind == "double":
            changed[at:at] = changed[at : at + value % 64]
    return bytes(changed)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Draw a frame whose parts have the fields of the command table, with values of any kind."""
    parts = []
    for row in draw(st.lists(st.sampled_from(list(COMMANDS.values())), min_size=1, max_size=3)):
        part: dict[str, Any] = {"op": row.op}
        for field in row.fields:
            if draw(st.booleans()):
                part[field.name] = draw(VALUES)
        parts.append(part)
    header: dict[str, Any] = {"parts": parts}
    for name in draw(st.lists(st.sampled_from(["request", "sequence", "answered_below"]))):
        header[name] = draw(st.sampled_from(EDGES) | VALUES)
    columns, lengths, blob = (draw(st.binary(max_size=64)) for _ in range(3))
    try:
        return wire.pack_frame(header, columns, lengths, blob)
    except (OverflowError, ValueError):  # a header that msgpack cannot pack is no input
        return wire.LENGTH.pack(1) + msgpack.packb(None)
