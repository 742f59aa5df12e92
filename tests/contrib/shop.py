"""An application of Celery that is nothing but Celery; tests run its worker."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from celery import Celery
from celery.exceptions import Reject

app = Celery("shop", broker=os.environ["SHOP_BROKER"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"lease": 2},
)
SAID = Path(os.environ["SHOP_SAID"])


def say(text: str) -> None:
    """Write a line where the test reads it: at once, and whole."""
    with SAID.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


@app.task(name="say", bind=True)
def say_task(self, text: str) -> None:
    """Say a word, how often it was delivered before, and whether it was to wait."""
    due = " due" if self.request.eta else ""
    say(f"{text} {(self.request.headers or {}).get('x-delivery-count', 0)}{due}")


@app.task(name="own", Request="celery.worker.request:Request")
def own(text: str) -> None:
    """Say a word; its class of requests is not ours."""
    say(f"{text} 0")


@app.task(name="wait", bind=True)
def wait(self, text: str, gate: str) -> None:
    """Say when it begins, wait until a file is there, and say that it has ended."""
    say(f"{text} began {(self.request.headers or {}).get('x-delivery-count', 0)}")
    while not Path(gate).exists():
        threading.Event().wait(0.02)  # as each pool waits: a thread, a process, a greenlet
    say(f"{text} ended")


@app.task(name="refuse")
def refuse(why: str) -> None:
    """Never succeed."""
    raise Reject(why, requeue=False)
