"""The workers of the story: one handler in the loop, one in threads, one in processes of its own.

Each writes two lines into the ledger: `begun` before anything else, `done` at the end. Then the worker writes
`told` and, of every second message, which it acks itself, `safe` when that is confirmed; it acks others silently.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import minibroker
from minibroker import Message

app = minibroker.App(name="story")
NEVER = threading.Event()
LEDGER = os.open(os.environ["STORY_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(verb: str, message: Any) -> None:
    """Append a line; it is with the kernel when this returns."""
    about = f"{message.queue} {message.id} {message.token} {message.attempt} {os.getpid()}"
    os.write(LEDGER, f"{verb} {time.monotonic_ns()} {about}\n".encode())


def some_time() -> float:
    """Return how long a message takes, in seconds: most are quick, some run when a kill comes."""
    return 1.0 if random.random() < 0.05 else random.uniform(0, 0.05)


@app.middleware
async def told(message: Message[Any]) -> AsyncIterator[None]:
    """Say that a handler has ended, and of every second message when that is safe."""
    yield
    note("told", message)
    if message.sequence % 2:
        await message.ack(confirmed=True)
        note("safe", message)


@app.handler("mails", concurrency=8, lease=2)
async def mail(message: Message[Any]) -> None:
    """Work in the loop."""
    note("begun", message)
    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=some_time())
    note("done", message)


@app.handler("orders", concurrency=4, lease=2)
def order(message: Message[Any]) -> None:
    """Work in a thread; the row must be there, or the publish came before its commit."""
    note("begun", message)
    with sqlite3.connect(os.environ["STORY_DATABASE"], timeout=60) as db:
        found = db.execute("SELECT number FROM placed WHERE id = ?", [message.body["row"]])
        if found.fetchone() != (message.body["number"],):
            note("norow", message)
    db.close()
    NEVER.wait(some_time())
    note("done", message)


@app.handler("photos", concurrency=2, lease=2, executor="process")
def photo(message: Message[Any]) -> None:
    """Work in a process."""
    note("begun", message)
    NEVER.wait(some_time())
    note("done", message)
