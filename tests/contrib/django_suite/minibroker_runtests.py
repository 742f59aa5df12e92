"""Has Django's own tests of tasks use minibroker where they say `DummyBackend` and `ImmediateBackend`.

python minibroker_runtests.py tasks [words for runtests.py], in Django's folder `tests`.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from tempfile import TemporaryDirectory
from typing import Any

import django.tasks.backends.dummy
import django.tasks.backends.immediate

from minibroker import UnknownQueue
from minibroker.contrib.django import MinibrokerBackend
from minibroker.contrib.django import task_records as records
from minibroker.contrib.django.running import app_of
from minibroker.testing import ServerProcess
from minibroker.worker import Control, LogReport, WorkOptions, work

RESULTS = "django-results"
QUEUES = "default", "queue_1", "queue-1"


class InTheDummysPlace(MinibrokerBackend):
    """Keeps what is enqueued, without a worker."""

    @property
    def results(self) -> list[Any]:
        """All that is known of tasks, in the order of the enqueues."""
        found = self.client.queue(RESULTS).peek(1_000)
        return [records.read(each.raw, self.alias) for each in found if each.raw]

    def clear(self) -> None:
        """Forget all that was enqueued."""
        for name in (RESULTS, *QUEUES):
            with suppress(UnknownQueue):
                self.client.queue(name).purge()


class InTheImmediatesPlace(MinibrokerBackend):
    """Enqueues a task, and has a worker run what is there before it returns."""

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Return the result as it is when the worker has ended."""
        with suppress(UnknownQueue):  # what an interrupt brought back is not of this test
            self.client.queue(task.queue_name).purge()
        result = super().enqueue(task, args, kwargs)
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(asyncio.run, self._work(task.queue_name)).result()
        if ending.error is not None:
            raise ending.error
        return self.get_result(result.id)

    async def _work(self, queue: str) -> Any:
        app = app_of(self, [queue], 1)
        return await work(app, WorkOptions(burst=True), LogReport(), Control())


def main() -> None:
    """Run them."""
    django.tasks.backends.dummy.DummyBackend = InTheDummysPlace
    django.tasks.backends.immediate.ImmediateBackend = InTheImmediatesPlace
    with TemporaryDirectory() as folder, ServerProcess(folder) as server:
        os.environ["MINIBROKER_URL"] = server.url
        sys.argv = ["runtests.py", *sys.argv[1:], "--parallel", "1"]
        runpy.run_path("runtests.py", run_name="__main__")


if __name__ == "__main__":
    main()
