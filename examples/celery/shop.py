"""The tasks of a shop: nothing in here but Celery."""

import os

from celery import Celery
from celery.exceptions import Reject

app = Celery("shop", broker=os.environ.get("BROKER", "minibroker://localhost:7272"))
app.conf.task_acks_late = True  # a task whose worker dies runs again
app.conf.broker_connection_retry_on_startup = True


@app.task(autoretry_for=(OSError,), retry_backoff=True, max_retries=5)
def mail(to: str, text: str) -> None:
    """Send a mail; tried again with growing delays, for which the broker holds it."""
    print(f"to {to}: {text}")


@app.task
def pack(article: str) -> None:
    """Pack a parcel; what cannot be packed goes to the dead-letter queue, with this reason."""
    if article not in ("teapot", "cup"):
        raise Reject(f"no such article: {article}", requeue=False)
    print(f"packed a {article}")
