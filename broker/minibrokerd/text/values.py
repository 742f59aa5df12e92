"""Bodies, headers and counters as text and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

DEEPEST: Final = 200  # levels of lists and maps that are written as such; below that, as text


def json_line(value: object, *, ascii_only: bool) -> str:
    """Return one line of JSON, whatever `value` is: RFC 8259, and nothing in it steers a terminal.

    Integers are written in full, also above 2^53, where a reader that takes numbers for floats rounds them. What
    JSON has no number for is the string "NaN", "Infinity" or "-Infinity". Bytes are text, those that are not
    UTF-8 escaped as `\\xff`; keys are text; everything else is its `str`.
    """
    line = json.dumps(_plain(value), ensure_ascii=ascii_only, allow_nan=False)
    if not line.isprintable():  # JSON escapes some of what steers a terminal, not all
        line = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)
    return line


def text_of(body: object) -> str:
    """Return a body as text: strings and bytes as they are, everything else as JSON."""
    if isinstance(body, bytes):
        return body.decode("utf-8", "backslashreplace")
    if isinstance(body, str):
        return body
    return json.dumps(_plain(body), ensure_ascii=False, allow_nan=False)


def is_text(body: bytes) -> bool:
    """Return whether the bytes are UTF-8."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _plain(value: object, depth: int = 0) -> Any:
    """Return `value` as what JSON knows."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return text_of(value)
    if depth < DEEPEST:
        if isinstance(value, Mapping):
            return {_key(name): _plain(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [_plain(each, depth + 1) for each in value]
    return str(value)


def plain(value: object) -> Any:
    """Return a value as what JSON knows, by the rules of `json_line`."""
    return _plain(value)


def _key(name: object) -> str:
    return name if isinstance(name, str) else text_of(name)
