"""How queues and exchanges of kombu are called here, and what their arguments mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

# Of a queue for control or events: longer than a broker is ever away.
LEAST_UNUSED_MS: Final = 600_000
_OTHER: Final = re.compile(r"[^A-Za-z0-9._-]")
_ARGUMENTS: Final = {
    "x-message-ttl": "message_ttl_ms",
    "x-max-length": "max_messages",
    "x-max-length-bytes": "max_bytes",
}


def name_of(name: str) -> str:
    """Return the name here, which has only letters, digits and . _ -: celery@host becomes celery_40_host."""
    return _OTHER.sub(lambda found: f"_{ord(found[0]):x}_", name)


def settings_of(arguments: Mapping[str, Any] | None, *, passes: bool) -> dict[str, int | str]:
    """Return the settings that a queue is declared with.

    `passes`: it is one of a connection (auto_delete, exclusive), as for control, its replies and events.
    Nothing of it is written to the disk, and it ends by itself if the one that made it was killed.
    """
    arguments = arguments or {}
    settings: dict[str, int | str] = {
        ours: int(arguments[theirs]) for theirs, ours in _ARGUMENTS.items() if arguments.get(theirs)
    }
    expires_ms = int(arguments.get("x-expires") or 0)
    if passes:
        settings["durability"] = "memory"
        settings["delete_unused_ms"] = max(expires_ms, LEAST_UNUSED_MS)
    elif expires_ms:
        settings["delete_unused_ms"] = expires_ms
    if "max_messages" in settings or "max_bytes" in settings:
        settings["overflow"] = "drop-oldest"  # as RabbitMQ does
    return settings
