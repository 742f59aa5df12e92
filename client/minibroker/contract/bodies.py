"""Bodies and headers as bytes: what may be published, and how it comes back.

`bytes` travel as they are. Everything else is msgpack, and only what msgpack gives back unchanged is
accepted: an object that would arrive as something else is refused before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgpack

from minibroker.contract import wire
from minibroker.contract.errors import BodyError

SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_KEYS: Final = frozenset({str})
_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack
_ACCEPTED: Final = (
    "a body may hold None, bool, 64-bit int, float, str, bytes, list, tuple and dict with str keys"
)


class Encoded(NamedTuple):
    """A body that is published as it stands: its bytes, and the number of their encoding (protocol.md, 3).

    For programs that carry messages from one queue to another; nothing looks whether the bytes are what it says.
    """

    raw: bytes
    encoding: int


def encode_body(body: object) -> tuple[bytes, int]:
    """Return the bytes of a body and their encoding (0 bytes, 1 msgpack).

    Raises:
        TypeError: the body holds something that would not arrive as it was sent; nothing was sent.
    """
    if type(body) is bytes:
        return body, wire.ENCODING_BYTES
    return pack_value(body), wire.ENCODING_MSGPACK


def encode_headers(headers: Mapping[str, object] | None) -> bytes:
    """Return the bytes of application headers; no headers are no bytes.

    Raises:
        TypeError: they are no dict with str keys, or hold a value that a body may not hold either.
    """
    if headers is None:
        return b""
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers is a {type(headers).__name__}; it must be a dict with str keys")
    return pack_value(dict(headers)) if headers else b""


def pack_value(value: object) -> bytes:
    """Return `value` as msgpack; TypeError names what it may not hold."""
    try:
        _check(value)
        packed: bytes = _pack(value)
    except RecursionError:
        raise TypeError(f"nested too deeply; {_ACCEPTED}") from None
    except (OverflowError, ValueError) as error:  # an int of 65 bits, a lone surrogate
        raise TypeError(f"{error}; {_ACCEPTED}") from error
    return packed


def _check(value: object) -> None:
    kind = type(value)
    if kind in SCALARS:
        return
    items: Any = value
    if kind is dict:
        if not _KEYS.issuperset(map(type, items)):
            wrong = next(type(name) for name in items if type(name) is not str)
            raise TypeError(f"a dict key is {wrong.__name__}; {_ACCEPTED}")
        items = items.values()
    elif kind is not list and kind is not tuple:
        raise TypeError(f"{kind.__module__}.{kind.__qualname__} cannot be sent; {_ACCEPTED}")
    if SCALARS.issuperset(map(type, items)):  # mostly: one call, however many there are
        return
    for item in items:
        if type(item) not in SCALARS:
            _check(item)


def decode_body(raw: bytes, encoding: int, name: str = "body") -> Any:
    """Return the body in `raw`; `name` is what errors call it.

    Raises:
        BodyError: the bytes are not what the encoding says; the caller still has them.
    """
    if encoding == wire.ENCODING_BYTES:
        return raw
    if encoding != wire.ENCODING_MSGPACK:
        raise BodyError(f"the {name} has encoding {encoding}, which this client does not know")
    try:
        return msgpack.unpackb(raw, ext_hook=_refuse_extension)
    except Exception as error:  # msgpack promises no closed set of errors: the body is one call
        reason = str(error) or type(error).__name__  # some of its errors have no text
        raise BodyError(f"the {name} of {len(raw)} bytes is not msgpack: {reason}") from error


def decode_headers(raw: bytes) -> dict[str, Any]:
    """Return the application headers in `raw`; BodyError if they are no map."""
    if not raw:
        return {}
    headers = decode_body(raw, wire.ENCODING_MSGPACK, "map of headers")
    if not isinstance(headers, dict):
        raise BodyError(f"the headers are {type(headers).__name__}, not a map")
    return headers


def _refuse_extension(code: int, data: bytes) -> None:
    raise ValueError(f"extension type {code}")
