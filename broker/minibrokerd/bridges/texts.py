"""Headers where the other broker knows text or bytes alone."""

from __future__ import annotations

import base64
import json
from typing import Any


def as_text(value: Any) -> str:
    """Return a header as text: a text as it is, everything else as JSON; bytes in it as base64."""
    return (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_base64)
    )


def text_or_bytes(value: bytes) -> str | bytes:
    """Return bytes as text if they are some."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _base64(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is no header")
