"""Why a task was rejected, for the history of the dead: Celery hands a transport a tag and no reason.

`Task.Request` is Celery's own place for a class of requests; an application that has set another one keeps it,
and its dead letters say less.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from celery.exceptions import Reject
from celery.signals import task_unknown
from celery.worker import request

DEFAULT: Final = "celery.worker.request:Request"
OURS: Final = "minibroker.contrib.celery.request:Request"


class Request(request.Request):
    """A request that says why it is rejected."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Note the reason before Celery rejects the message."""
        if isinstance(exc_info.exception, Reject):
            _note(self.message, exc_info.exception)
        return super().on_failure(exc_info, *args, **kwargs)


def _note(message: Any, error: BaseException) -> None:
    explain = getattr(message.channel.qos, "explain", None)
    if explain is not None:  # else it is of another transport
        explain(message.delivery_tag, error)


def _unknown(message: Any = None, exc: Any = None, **kwargs: Any) -> None:
    _note(message, exc)


def install() -> None:
    """Have these requests in a worker that starts."""
    task = sys.modules["celery.app.task"].Task
    if task.Request == DEFAULT:
        task.Request = OURS
    task_unknown.connect(_unknown, weak=False, dispatch_uid=OURS)
