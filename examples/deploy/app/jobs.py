"""What the worker of this folder runs: put your own here."""

from __future__ import annotations

from dataclasses import dataclass

import minibroker

app = minibroker.App()


@dataclass
class Welcome:
    """Somebody is to be welcomed."""

    to: str


@app.handler("welcomes", concurrency=8, timeout=60)
async def welcome(mail: Welcome) -> None:
    """Say so; a real one sends a mail."""
    print("welcome", mail.to, flush=True)
