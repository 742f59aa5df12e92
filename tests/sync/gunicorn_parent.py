"""A configuration of gunicorn: at the very end its master settles what it had begun before it forked."""

from __future__ import annotations

from typing import Any


def on_exit(server: Any) -> None:
    """In the master, when all workers have ended."""
    import prefork_app

    for message in prefork_app.held:
        message.ack(confirmed=True)
        print("the master has settled its own", flush=True)
