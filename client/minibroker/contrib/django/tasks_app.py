"""The app of `manage.py minibroker_worker`, made of the settings and of what the command was asked for."""

from __future__ import annotations

import json
import os
from typing import Any

import django

from minibroker.contrib.django.backend import WANTED


def _app(backend: str, queues: list[str], concurrency: int) -> Any:
    django.setup()
    from minibroker.contrib.django.interface import task_backends
    from minibroker.contrib.django.running import app_of

    return app_of(task_backends[backend], queues, concurrency)


app = _app(**json.loads(os.environ[WANTED]))
