"""What the scripts of this folder share: one message as a line that `minibroker import` takes."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any


def write(body: bytes, **more: Any) -> None:
    """Print one message; `more`: headers, key, delay_ms, max_attempts, lease_ms, where they are not empty."""
    line = {name: value for name, value in more.items() if value}
    try:
        line |= {"body": body.decode(), "encoding": "bytes"}
    except UnicodeDecodeError:
        line |= {"body_base64": base64.b64encode(body).decode(), "encoding": "bytes"}
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")


def plain(value: Any) -> Any:
    """Return a header's value as JSON has it: what is no number, text, list or map becomes text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value)
