"""The app of `manage.py minibroker_worker`, made of the settings and of what the command was asked for."""

from __future__ import annotations

import json
import os
from typing import Any

import django

from minibroker.contrib.django.backend import WANTED
from minibroker.sync.message import Message


def _app(backend: str, queues: list[str], concurrency: int) -> Any:
    django.setup()
    from minibroker.contrib.django.interface import task_backends
    from minibroker.contrib.django.running import run
    from minibroker.worker import App

    tasks = task_backends[backend]
    app = App(tasks.url, **tasks.connection)
    how: dict[str, Any] = {"concurrency": concurrency, "executor": "thread", **tasks.settings}
    for queue in queues:

        def handle(message: Message[Any]) -> Any:
            return run(tasks, message)

        handle.__qualname__ = "tasks of Django"
        app.handler(queue, **how)(handle)

    return app


app = _app(**json.loads(os.environ[WANTED]))
