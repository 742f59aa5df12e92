"""The backend: what `task.enqueue()` and `task.get_result()` come to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from string import ascii_letters, digits
from typing import Any, Final
from uuid import uuid4

from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.utils import timezone

import minibroker.sync
from minibroker.contract.errors import BadValue
from minibroker.contract.limits import DLQ_SUFFIX, MAX_QUEUE_NAME_CHARS
from minibroker.contract.settings import SETTINGS
from minibroker.contrib.django import task_records as records
from minibroker.contrib.django.interface import (
    BaseTaskBackend,
    InvalidTask,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_enqueued,
)
from minibroker.contrib.named_results import NamedResults

DAY_S: Final = 86_400
# Variable of a worker: backend, queues, concurrency, as JSON.
WANTED: Final = "MINIBROKER_DJANGO_WORKER"
NAME_CHARS: Final = {*ascii_letters, *digits, *"._-"}
MIDDLE: Final = 4  # the priority here of what has none there


class ResultRefused(Exception):
    """A task ran to its end, and the broker refuses to keep what it returned; `__cause__` says why.

    The task has FAILED and is dead, for nobody can know what it came to; it is not run again by itself.
    """


class MinibrokerBackend(BaseTaskBackend):
    """A backend for Django's Tasks; it connects when it is used first, so also in a child of a fork.

        TASKS = {"default": {"BACKEND": "minibroker.contrib.django.MinibrokerBackend"}}

    `OPTIONS`, all of them optional:

        url: as `minibroker.sync.connect` has it.
        on_commit: True: a task is stored when the transaction around it is committed, and with it rolled back.
        database: whose transaction that is.
        results: name of the queue that has the results, which nobody consumes; None: none are kept.
        results_kept: for so many seconds, a day if nothing is said.
        settings: of each queue, as `minibroker.sync.Broker.queue` has them.
        others: those of `minibroker.sync.connect`: token, ca, timeout, ...
    """

    supports_defer = True
    supports_async_task = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        options = dict(self.options)
        self._on_commit = bool(options.pop("on_commit", False))
        self._database = options.pop("database", None)
        self._results_queue = options.pop("results", "django-results")
        self._kept_s: float = options.pop("results_kept", DAY_S)
        self.settings: dict[str, Any] = dict(options.pop("settings", {}))
        self.url: str | None = options.pop("url", None)
        self.connection: dict[str, Any] = options
        self.supports_get_result = self._results_queue is not None
        try:
            self.client = minibroker.sync.connect(self.url, lazy=True, **options)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"OPTIONS of TASKS[{alias!r}]: {error}") from error
        if self.supports_get_result:
            self._results = NamedResults(self.client, self._results_queue)

    def validate_task(self, task: Any) -> None:
        """Refuse a task that cannot run here.

        Raises:
            InvalidTask: as Django says, or its queue has a name that no queue has here.
        """
        super().validate_task(task)
        if why := wrong_name(task.queue_name):
            raise InvalidTask(why)

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Say what `manage.py check` has to say of the settings; nobody is asked for it."""
        names = self.queues if self._results_queue is None else {*self.queues, self._results_queue}
        wrong = [why for name in sorted(names) if (why := wrong_name(name))]
        if self._results_queue in self.queues:
            wrong.append(f"{self._results_queue!r} has the results; nobody may consume it")
        unknown = sorted(set(self.settings) - set(SETTINGS))
        wrong += [f"queues have no setting {name!r}" for name in unknown]
        where = f"TASKS[{self.alias!r}]"
        return [Error(f"{where}: {why}", id="minibroker.E001") for why in wrong]

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Store a task, or do so when the transaction is committed; return its TaskResult.

        Raises:
            InvalidTask: this backend cannot run it.
            TypeError, ValueError: its arguments cannot be written as JSON.
            MinibrokerError: it is not stored, or nobody knows.
        """
        self.validate_task(task)
        result = TaskResult(
            task=task,
            id=uuid4().hex,
            status=TaskResultStatus.READY,
            enqueued_at=timezone.now(),
            started_at=None,
            last_attempted_at=None,
            finished_at=None,
            args=records.plain(args),
            kwargs=records.plain(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        if self._on_commit:
            transaction.on_commit(partial(self._store, result), using=self._database)
        else:
            self._store(result)
        return result

    def _store(self, result: Any) -> None:
        task, record = result.task, records.write(result)
        delay_s = 0.0
        if task.run_after is not None:
            # By the clock of the world: with and without a zone, and across a change to summer time.
            delay_s = max(0.0, task.run_after.timestamp() - timezone.now().timestamp())
        with self.client.step() as step:  # a task and its result are there together
            if self.supports_get_result:
                self.say_result(step, result.id, record, delay_s)
            queue = self.client.queue(task.queue_name, **self.settings)
            step.publish(queue, record, delay=delay_s, priority=priority_of(task.priority))
        task_enqueued.send(type(self), task_result=result)

    def say_result(self, step: Any, id: str, record: bytes, delay_s: float = 0) -> None:
        """Have a step keep the record of a task, in the place of what was; it may run after `delay_s`."""
        if not self.supports_get_result:
            return
        step.publish(
            self._results_queue,
            record,
            unique_key=id,
            unique="replace",
            ttl=self._kept_s + delay_s,
        )

    def keep_result(self, result: Any, timeout_s: float | None = None) -> None:
        """Keep what is known of a task, in the place of what was."""
        self.keep(result.id, records.write(result), timeout_s)

    def keep(self, id: str, record: bytes, timeout_s: float | None = None) -> None:
        """Keep the record of a task, in the place of what was; `timeout_s` None: the client's."""
        if self.supports_get_result:
            self._results.put(id, record, self._kept_s, timeout_s)

    def get_result(self, result_id: str) -> Any:
        """Return the TaskResult of this id.

        Raises:
            TaskResultDoesNotExist: there was never one, or it is kept no longer.
            ImportError: its task is not in the code any more.
        """
        if not self.supports_get_result:
            return super().get_result(result_id)
        try:
            data = self._results.get(result_id)
        except (TypeError, BadValue) as error:
            raise TaskResultDoesNotExist(result_id) from error
        if data is None:
            raise TaskResultDoesNotExist(result_id)
        return records.read(data, self.alias)


def wrong_name(queue: str) -> str:
    """Return why this can be no queue of tasks; empty: it can."""
    if not 0 < len(queue) <= MAX_QUEUE_NAME_CHARS or not set(queue) <= NAME_CHARS:
        return f"{queue!r} is no queue name; use 1 to {MAX_QUEUE_NAME_CHARS} of A-Z a-z 0-9 . _ -"
    return f"{queue!r} is a dead-letter queue" if queue.endswith(DLQ_SUFFIX) else ""


def priority_of(priority: int) -> int:
    """Return the priority here, 0 to 9, of one of Django's, -100 to 100: 9 goes first.

    0 is 4. Above it each 20 are one more, below it each 25 one less: 1 to 20 are 5, -1 to -25 are 3.
    """
    priority = int(priority)
    return MIDDLE - (-priority // 20) if priority > 0 else MIDDLE + priority // 25
