"""What a worker knows of a task and a transport does not: when it starts, why it is rejected, that it had an ETA.

A worker has more tasks than it runs. The others are lent to it, and go to whoever has nothing to do, or needs them
when this worker dies; each begins here where it starts. With processes and without a pool that is where Celery
hands it over, since it does so when there is a place; threads and greenlets are handed more, and say which they
start. What has been given back by then is passed over. The reason of a rejection is for the history of the dead:
Celery hands a transport a tag alone.

`Task.Request` is Celery's own place for a class of requests; an application that has set another one keeps it.
Then its tasks begin when the worker gets them, and its dead letters say less.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, Final

from celery import current_app
from celery.exceptions import Reject, TaskRevokedError
from celery.signals import task_unknown
from celery.utils.imports import symbol_by_name
from celery.worker import request, state

from minibroker.contrib.celery.envelope import ETA

DEFAULT: Final = "celery.worker.request:Request"
OURS: Final = "minibroker.contrib.celery.request:Request"
STRATEGY: Final = "celery.worker.strategy:default"
PROCESSES: Final = "celery.concurrency.prefork"
# Pools that take tasks before they run them: what these start says so first.
QUEUEING: Final = ("celery.concurrency.thread", "celery.concurrency.gevent")
_Quiet: Any = sys.modules["greenlet"].GreenletExit if "greenlet" in sys.modules else Exception


class GivenBack(_Quiet):  # a greenlet that it ends says nothing of it
    """A task does not start: it was given back before, and may be somebody else's."""


class Request(request.Request):
    """A request that begins its task, says why it is rejected, and knows the ETA for which the broker waited."""

    _has_begun = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Celery makes a class of each task, which has its own way into the pool: to begin comes before it."""
        super().__init_subclass__(**kwargs)
        theirs = cls.__dict__.get("execute_using_pool")
        if theirs is not None:
            cls.execute_using_pool = _begun_before(theirs)
        theirs = cls.__dict__.get("on_success")
        if theirs is not None:
            cls.on_success = _unless_cancelled(theirs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # takes it that there is no ETA, so it starts at once
        eta = self._request_dict.get(ETA)
        if eta is not None:
            self._request_dict["eta"] = eta

    def begins(self, *, apart: bool = False) -> bool:
        """Begin it, if that was not done. False: it was given back, and is not to run here.

        `apart`: it will start in a process.
        """
        if not self._has_begun:
            begin = getattr(self.message.channel.qos, "begin", None)  # None: of another transport
            self._has_begun = begin is None or begin(
                self.message.delivery_tag, told=bool(self.task.acks_late), apart=apart
            )
            if not self._has_begun and state.requests.get(self.id) in (None, self):
                state.task_ready(self)
        return self._has_begun

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Begin it, as it starts in a pool that has a queue.

        Raises:
            GivenBack: it does not start.
        """
        if not self.begins():
            raise GivenBack(self.id)
        super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Note the reason before Celery rejects the message."""
        if isinstance(exc_info.exception, Reject):
            _note(self.message, exc_info.exception)
        return super().on_failure(exc_info, *args, **kwargs)


class _Passing(threading.local):
    """Frees the places of tasks that are passed over; with thousands the semaphore would call itself too deep."""

    owed = 0
    frees = False

    def over(self, room: Any) -> None:
        """Free one place of the pool; what waits for it may be passed over in turn."""
        self.owed += 1
        if self.frees:
            return
        self.frees = True
        try:
            while self.owed:
                self.owed -= 1
                room.release()
        finally:
            self.frees = False


_passing = _Passing()


def _begun_before(theirs: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(theirs)
    def execute_using_pool(self: Request, pool: Any, **kwargs: Any) -> Any:
        kind = type(pool).__module__
        if kind in QUEUEING or self.begins(apart=kind == PROCESSES):
            return theirs(self, pool, **kwargs)
        room = pool.options.get("semaphore")
        if room is None:
            raise TaskRevokedError(self.id)
        return _passing.over(room)

    return execute_using_pool


def _unless_cancelled(theirs: Callable[..., Any]) -> Callable[..., Any]:
    """A greenlet that a cold shutdown kills is a success for Celery: acked, though it is to run elsewhere."""

    @wraps(theirs)
    def on_success(self: Request, failed__retval__runtime: Any, **kwargs: Any) -> Any:
        was_killed = self._already_cancelled and failed__retval__runtime[2] is None
        return None if was_killed else theirs(self, failed__retval__runtime, **kwargs)

    return on_success


def _note(message: Any, error: BaseException) -> None:
    explain = getattr(message.channel.qos, "explain", None)
    if explain is not None:  # else it is of another transport
        explain(message.delivery_tag, error)


def _unknown(message: Any = None, exc: Any = None, **kwargs: Any) -> None:
    _note(message, exc)


@lru_cache
def _is_ours(kind: Any) -> bool:
    return issubclass(symbol_by_name(kind), Request)


def tells_start(name: Any) -> bool:
    """Return whether the worker of this process will say when a task of this name starts."""
    task = current_app.tasks.get(name)
    return task is not None and _is_ours(task.Request) and task.Strategy == STRATEGY


def install() -> None:
    """Have these requests in a worker that starts."""
    task = sys.modules["celery.app.task"].Task
    if task.Request == DEFAULT:
        task.Request = OURS
    task_unknown.connect(_unknown, weak=False, dispatch_uid=OURS)
