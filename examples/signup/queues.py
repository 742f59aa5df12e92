"""The queues of the signup service and their settings."""

from __future__ import annotations

import minibroker

QUEUES = ("mails", "avatars", "analytics")

SETTINGS: dict[str, int | str] = {
    "durability": "sync",  # a confirmed signup survives a power cut
    "max_attempts": 5,
    # Short, so that five attempts are over in seconds; a real mail queue waits minutes.
    "retry_delay_ms": 300,
    "retry_factor_percent": 150,
    "retry_jitter_percent": 20,
}


async def configure(broker: minibroker.Broker, lease_ms: int) -> None:
    """Create the queues, or change their settings; part of a deployment, safe to repeat."""
    for name in QUEUES:
        await broker.queue(name).set(lease_ms=lease_ms, **SETTINGS)
