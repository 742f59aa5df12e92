"""The trace of a message as environment variables, so that shell scripts are part of it without any library.

OpenTelemetry names them as the headers, in upper case: `consume --exec` sets them for its command, and `publish`
takes what it finds. Tools that start commands within a span, and CI systems, set the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

TRACE_PARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
HEADERS: Final = ("traceparent", "tracestate", "baggage")
MOST_CHARS: Final = 8_192  # of each; baggage has this limit


def variables_of(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables for a command; those of another trace are emptied. None if the message has no trace."""
    if not _is_parent(headers.get(HEADERS[0])):
        return {}
    return {name.upper(): _text(headers.get(name)) for name in HEADERS}


def headers_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the headers for a message that is published where these variables are set."""
    if not _is_parent(environment.get(HEADERS[0].upper())):
        return {}
    found = {name: _text(environment.get(name.upper())) for name in HEADERS}
    return {name: value for name, value in found.items() if value}


def _is_parent(value: object) -> bool:
    return isinstance(value, str) and TRACE_PARENT.fullmatch(value) is not None


def _text(value: object) -> str:
    """Return what can stand in a variable and in a header: printable ASCII, bounded, else nothing."""
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
        return ""
    return value if len(value) <= MOST_CHARS else ""
