"""Bodies: what may be sent arrives as it was; what may not is refused before anything is sent."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibroker.contract.bodies import decode_body, decode_headers, encode_body, encode_headers
from minibroker.contract.errors import BodyError
from support.ids import without_address

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
BODIES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(BODIES)
def test_a_body_arrives_as_it_was_sent(body: Any) -> None:
    assert decode_body(*encode_body(body)) == body


def test_bytes_travel_as_they_are() -> None:
    assert encode_body(b"\x00raw") == (b"\x00raw", 0)


def test_a_tuple_arrives_as_a_list() -> None:
    assert decode_body(*encode_body({"a": (1, (2,))})) == {"a": [1, [2]]}


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "body",
    [
        object(),
        {1: "a"},
        {b"a": 1},
        [{1, 2}],
        {"a": {"b": datetime(2026, 1, 1)}},
        Colour.RED,
        2**64,
        -(2**63) - 1,
        "\ud800",
        bytearray(b"x"),
    ],
    ids=without_address,
)
def test_what_would_not_arrive_unchanged_is_a_type_error(body: object) -> None:
    with pytest.raises(TypeError):
        encode_body(body)


def test_a_body_in_itself_is_a_type_error() -> None:
    body: list[object] = []
    body.append(body)
    with pytest.raises(TypeError):
        encode_body(body)


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x01\x02", b"\xc7\x01\x05x", b"\xa1\xff", b"\x91"])
def test_what_is_no_msgpack_is_a_body_error(raw: bytes) -> None:
    with pytest.raises(BodyError, match=rf"the body of {len(raw)} bytes is not msgpack: \S"):
        decode_body(raw, 1)


def test_an_unknown_encoding_is_a_body_error() -> None:
    with pytest.raises(BodyError):
        decode_body(b"", 9)


def test_headers_are_a_dict() -> None:
    assert encode_headers(None) == encode_headers({}) == b""
    assert decode_headers(b"") == {}
    assert decode_headers(encode_headers({"trace": "x"})) == {"trace": "x"}
    with pytest.raises(BodyError, match="the headers are int, not a map"):
        decode_headers(b"\x01")
    with pytest.raises(
        BodyError, match="the map of headers of 1 bytes is not msgpack: FormatError"
    ):
        decode_headers(b"\xc1")
