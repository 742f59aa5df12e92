"""The handlers of the queues. Run: minibroker worker workers:app, or with --queues for some of them.

A message comes at least once. So each handler asks what a second delivery does:
- an avatar overwrites itself with the same picture: harmless;
- a signup is counted under a primary key: harmless;
- a mail cannot be called back. If the worker dies after the mail server said OK and before the ack,
  the user gets two. That is the price of never losing one, and the demo counts it as a duplicate.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import minibroker

from database import Analytics, Users
from journal import Journal
from mail import send_welcome_mail
from photo import make_avatar
from queues import NewPhoto, NewUser
from settings import Settings

settings = Settings.from_environment()
users = Users(settings.folder)
analytics = Analytics(settings.folder, settings.analytics_seconds)
journal = Journal(settings.folder / "journal.jsonl")
app = minibroker.App(settings.broker_url, name=f"worker-{os.getpid()}")

QUEUE: dict[str, Any] = {
    "durability": "sync",  # a confirmed signup survives a power cut
    "lease_ms": settings.lease_ms,
    "max_attempts": 5,
    # Short, so that five attempts are over in seconds; a real mail queue waits minutes.
    "retry_delay_ms": 300,
    "retry_factor_percent": 150,
}


@app.handler("mails", concurrency=2, **QUEUE)
async def welcome(signup: NewUser) -> None:
    """Send the welcome mail to the address the user has now, not the one at signup.

    A refusal is an exception like any other, so it costs an attempt; a stricter worker would
    raise `Reject` on a 550 and have it in the dead-letter queue at once.
    """
    user = await asyncio.to_thread(users.find, signup.user_id)
    await send_welcome_mail(user, settings.smtp_port)


@app.handler("avatars", executor="process", **QUEUE)
def avatar(photo: NewPhoto) -> None:
    """Make the avatar, in a process of its own: Pillow computes, and may well be killed for its memory."""
    make_avatar(Path(photo.photo), settings.folder / "avatars", photo.user_id)


@app.handler("analytics", **QUEUE)
def count(signup: NewUser) -> None:
    """Count the signup."""
    analytics.count_signup(signup.user_id)


@app.middleware
async def journaled(message: minibroker.Message[Any]) -> AsyncIterator[None]:
    """Write down when a handler starts and how it ends: at a kill, a start without an end is what was running."""
    entry = {"queue": message.queue, "user_id": message.body["user_id"], "pid": os.getpid()}
    journal.write(event="started", **entry)
    try:
        yield
    except BaseException as error:
        journal.write(event="failed", error=type(error).__name__, **entry)
        raise
    journal.write(event="done", **entry)


@app.lifespan
async def life(app: minibroker.App) -> AsyncIterator[None]:
    """Leave the app the processor time that its requests need, and tell the demo of this worker."""
    os.nice(10)
    journal.write(event="ready", pid=os.getpid())
    yield
