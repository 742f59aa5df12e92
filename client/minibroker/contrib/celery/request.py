"""What a worker knows of a task and a transport does not: why it was rejected, and that it had an ETA.

The reason is for the history of the dead: Celery hands a transport a tag alone.

`Task.Request` is Celery's own place for a class of requests; an application that has set another one keeps it,
and its dead letters say less.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from celery.exceptions import Reject
from celery.signals import task_unknown
from celery.worker import request

from minibroker.contrib.celery.envelope import ETA

DEFAULT: Final = "celery.worker.request:Request"
OURS: Final = "minibroker.contrib.celery.request:Request"


class Request(request.Request):
    """A request that says why it is rejected, and whose task knows the ETA for which the broker has waited."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # takes it that there is no ETA, so it starts at once
        eta = self._request_dict.get(ETA)
        if eta is not None:
            self._request_dict["eta"] = eta

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
