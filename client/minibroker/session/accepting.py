"""What this client knows of frames that a server sends only to clients that say so (`accept`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from minibroker.contract import wire

KNOWN: Final = ("recalls", "through")  # as both the welcome and `accept` call them


def accept_of(welcome: Mapping[str, Any]) -> bytes:
    """Return the frame that accepts what a server offers in its welcome; nothing where it offers none of it."""
    known = {name: 1 for name in KNOWN if welcome.get(name)}
    return wire.pack_frame({"parts": [{"op": "accept", **known}]}) if known else b""
