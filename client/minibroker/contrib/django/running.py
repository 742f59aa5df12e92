"""One message in the worker: its task is run, and what it comes to is kept with the ack, in one step.

A plain function runs in a thread of the worker, a coroutine function in its loop. Whatever a task raises is its
failure, and the message is dead with that error; `minibroker.worker.Retry` has it come again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from inspect import iscoroutinefunction
from traceback import format_exception
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from django.utils import timezone

from minibroker.contract.errors import CommandError, LeaseLost, MinibrokerError
from minibroker.contrib.django import task_records as records
from minibroker.contrib.django.backend import MinibrokerBackend, ResultRefused
from minibroker.contrib.django.interface import (
    TaskContext,
    TaskError,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_finished,
    task_started,
)
from minibroker.sync.message import Message
from minibroker.worker import App, Reject, Retry
from minibroker.worker.following import most_attempts

logger = logging.getLogger("minibroker")

PATIENCE_S: Final = timedelta(
    days=7
).total_seconds()  # a task that ran waits for a broker that is away
MOST_ATTEMPTS: Final = 5  # of a queue whose settings nobody knows
MOST_TRACEBACK_BYTES: Final = 65_536  # of each attempt, from its end
NOT_OURS: Final = (KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)


def app_of(backend: MinibrokerBackend, queues: Iterable[str], concurrency: int) -> App:
    """Return an app that runs the tasks of these queues, so many of each at once."""
    app = App(backend.url, **backend.connection)
    how: dict[str, Any] = {"concurrency": concurrency, "executor": "thread", **backend.settings}
    for queue in queues:

        def handle(message: Message[Any]) -> Any:
            return run(backend, message)

        handle.__qualname__ = "tasks of Django"
        app.handler(queue, **how)(handle)
    return app


def run(backend: MinibrokerBackend, message: Any) -> Any:
    """Run the task of a message in this thread; what it returns, if anything, is to be awaited in the loop."""
    running = Running(backend, message)
    if iscoroutinefunction(running.result.task.func):
        return _run_in_loop(running)
    close_old_connections()
    try:
        running.start()
        task_started.send(type(backend), task_result=running.result)
        value = records.plain(running.result.task.func(*running.args(), **running.result.kwargs))
        running.succeeded(value)
        with _keeping(), message.step(timeout=PATIENCE_S) as step:
            backend.say_result(step, running.result.id, records.write(running.result))
    except (LeaseLost, *NOT_OURS):
        raise
    except BaseException as error:
        running.failed(error)
        if running.is_over:
            message.reject(error)
            task_finished.send(type(backend), task_result=running.result)
        if isinstance(error, Exception):
            raise
        raise Reject(repr(error)) from error  # a task that exits does not end the worker
    finally:
        close_old_connections()
    task_finished.send(type(backend), task_result=running.result)
    return None


async def _run_in_loop(running: Running) -> None:
    backend, message, result = running.backend, running.message, running.result
    await sync_to_async(close_old_connections)()
    try:
        await asyncio.to_thread(running.start)
        await _send(task_started, running)
        # In a context of its own: what it activates, a language or a time zone, is not that of the next one.
        ran = asyncio.create_task(result.task.func(*running.args(), **result.kwargs))
        value = records.plain(await ran)
        running.succeeded(value)
        with _keeping():
            async with message.step(timeout=PATIENCE_S) as step:
                backend.say_result(step, result.id, records.write(result))
    except (LeaseLost, *NOT_OURS):
        raise
    except BaseException as error:
        await asyncio.to_thread(running.failed, error)
        if running.is_over:
            await message.reject(error)
            await _send(task_finished, running)
        if isinstance(error, Exception):
            raise
        raise Reject(repr(error)) from error  # a task that exits does not end the worker
    finally:
        await sync_to_async(close_old_connections)()
    await _send(task_finished, running)


async def _send(signal: Any, running: Running) -> None:
    """Tell those who want to hear of a task; Django 4.2 has no way to do so in a loop."""
    send = getattr(signal, "asend", None) or sync_to_async(signal.send)
    await send(type(running.backend), task_result=running.result)


@contextmanager
def _keeping() -> Iterator[None]:
    """Have the error of a result that is refused say that its task ran."""
    try:
        yield
    except LeaseLost:
        raise
    except CommandError as error:
        why = f"{type(error).__name__}: {error}"
        raise ResultRefused(f"it ran, and what it returned cannot be kept: {why}") from error


class Running:
    """A task that a worker has: what is known of it as it goes on."""

    def __init__(self, backend: MinibrokerBackend, message: Any) -> None:
        self.backend = backend
        self.message = message
        self.is_over = False
        try:
            self.result = records.read(
                message.raw, backend.alias, id=str(message.id), queue_name=message.queue
            )
        except Exception as error:  # whatever importing the module of a task raises
            with suppress(ValueError, TypeError, KeyError):  # of a message that others made
                backend.keep(*records.refused(message.raw, error), PATIENCE_S)
            raise Reject(f"it is no task that can run here: {error!r}") from error

    def start(self) -> None:
        """Say that it runs now, here. That this cannot be said is no reason not to run it."""
        result = self.result
        try:
            if self.message.attempt > 1:
                self._remember()
            now = timezone.now()
            records.change(
                result,
                status=TaskResultStatus.RUNNING,
                started_at=result.started_at or now,
                last_attempted_at=now,
            )
            result.worker_ids.append(worker_id())
            self.backend.keep_result(result)
        except MinibrokerError as error:
            logger.warning("that task %s runs could not be said: %s", result.id, error)

    def _remember(self) -> None:
        """Know what earlier attempts left, wherever they were."""
        try:
            before = self.backend.get_result(self.result.id)
        except (TaskResultDoesNotExist, NotImplementedError):
            return
        known = {name: getattr(before, name) for name in ("started_at", "worker_ids", "errors")}
        records.change(self.result, **known)

    def args(self) -> list[Any]:
        """Return what its function is called with, by place."""
        result = self.result
        context = [TaskContext(task_result=result)] if result.task.takes_context else []
        return [*context, *result.args]

    def succeeded(self, value: Any) -> None:
        """Note what it came to."""
        now = timezone.now()
        status = TaskResultStatus.SUCCESSFUL
        records.change(self.result, status=status, finished_at=now, _return_value=value)

    def failed(self, error: BaseException) -> None:
        """Note and say an error: the end, unless it is a Retry and attempts are left.

        That it cannot be said is no reason to run the task again: its dead letter says why.
        """
        result = self.result
        path = records.path_of(error)
        result.errors.append(TaskError(exception_class_path=path, traceback=_text_of(error)))
        self.is_over = not isinstance(error, Retry) or self._is_last_attempt()
        if self.is_over:
            status, at = TaskResultStatus.FAILED, timezone.now()
        else:
            status, at = TaskResultStatus.READY, None
        records.change(result, status=status, finished_at=at, _return_value=None)
        try:
            self.backend.keep_result(result, PATIENCE_S)
        except MinibrokerError as trouble:
            logger.warning("that task %s failed could not be said: %s", result.id, trouble)

    def _is_last_attempt(self) -> bool:
        """Ask how many the queue has now: a policy may say so, or somebody's `queue set`."""
        message = self.message
        try:
            settings = self.backend.client.queue(message.queue).settings(timeout=PATIENCE_S)
        except MinibrokerError as error:
            logger.warning("how often task %s may run is not known: %s", self.result.id, error)
            settings = {"max_attempts": self.backend.settings.get("max_attempts", MOST_ATTEMPTS)}
        most = most_attempts(message.queue, message.max_attempts, settings)
        return most is not None and message.attempt >= most


def _text_of(error: BaseException) -> str:
    """Return the end of its traceback, as text that can be kept whatever it says: also a name that is no UTF-8."""
    text = "".join(format_exception(error)).encode(errors="backslashreplace")
    return text[-MOST_TRACEBACK_BYTES:].decode(errors="ignore")


def worker_id() -> str:
    """Return the name of this process."""
    return f"{socket.gethostname()}-{os.getpid()}"
