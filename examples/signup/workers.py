"""The workers: one process for each kind of work. Run: python workers.py mails|avatars|analytics

A message comes at least once. So each handler asks what a second delivery does:
- an avatar overwrites itself with the same picture: harmless;
- a signup is counted under a primary key: harmless;
- a mail cannot be called back. If the worker dies after the mail server said OK and before the ack,
  the user gets two. That is the price of never losing one, and the demo counts it as a duplicate.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import minibroker

from database import Analytics, Users
from journal import Journal
from mail import send_welcome_mail
from photo import make_avatar
from settings import Settings

Work = Callable[[dict[str, Any]], Awaitable[None]]

CONCURRENCY = {"mails": 2, "avatars": 1, "analytics": 1}  # messages at a time in one process


class Workers:
    """The work behind each queue; `body` is what the app published."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._users = Users(settings.folder)
        self._analytics = Analytics(settings.folder, settings.analytics_seconds)

    async def mails(self, body: dict[str, Any]) -> None:
        """Send the welcome mail to the address the user has now, not the one at signup.

        A refusal is an exception like any other, so it costs an attempt; a stricter worker would
        call `message.reject()` on a 550 and have it in the dead-letter queue at once.
        """
        user = await asyncio.to_thread(self._users.find, body["user_id"])
        await send_welcome_mail(user, self._settings.smtp_port)

    async def avatars(self, body: dict[str, Any]) -> None:
        """Make the avatar, in a thread: Pillow computes, the loop stays free."""
        folder = self._settings.folder / "avatars"
        await asyncio.to_thread(make_avatar, Path(body["photo"]), folder, body["user_id"])

    async def analytics(self, body: dict[str, Any]) -> None:
        """Count the signup."""
        await asyncio.to_thread(self._analytics.count_signup, body["user_id"])


def journaled(
    queue: str, work: Work, journal: Journal
) -> Callable[[minibroker.Message[Any]], Awaitable[None]]:
    """Return a handler that does the work and writes down when it starts and how it ends.

    The demo reads there what was running at a kill: a start without an end.
    """

    async def handle(message: minibroker.Message[Any]) -> None:
        entry = {"queue": queue, "user_id": message.body["user_id"], "pid": os.getpid()}
        journal.write(event="started", **entry)
        try:
            await work(message.body)
        except BaseException as error:
            journal.write(event="failed", error=type(error).__name__, **entry)
            raise
        journal.write(event="done", **entry)

    return handle


async def main(queue: str) -> None:
    """Work until SIGTERM or SIGINT; then finish what was begun and give back the rest."""
    name = f"{queue}-worker-{os.getpid()}"  # stands in the history of what fails here
    settings = Settings.from_environment()
    journal = Journal(settings.folder / "journal.jsonl")
    handler = journaled(queue, getattr(Workers(settings), queue), journal)
    async with minibroker.connect(settings.broker_url, name=name) as broker:
        run = asyncio.ensure_future(
            broker.queue(queue).run(handler, concurrency=CONCURRENCY[queue])
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, run.cancel)
        journal.write(event="ready", queue=queue, pid=os.getpid())
        await asyncio.wait([run])
    if not run.cancelled():
        run.result()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in CONCURRENCY:
        sys.exit(f"usage: python workers.py {'|'.join(CONCURRENCY)}")
    os.nice(10)  # workers on the machine of the app take what processor time the requests leave
    asyncio.run(main(sys.argv[1]))
