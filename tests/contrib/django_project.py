"""A project of Django whose tasks run on minibroker: its settings, and how a program of it begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from libraries import DJANGO, Library

from support.broker import BrokerServer

SETTINGS = """
USE_TZ = True
INSTALLED_APPS = ["minibroker.contrib.django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}}
BACKEND = "minibroker.contrib.django.MinibrokerBackend"
TASKS = {
    "default": {"BACKEND": BACKEND, "QUEUES": ["default", "mails"]},
    "committed": {"BACKEND": BACKEND, "OPTIONS": {"on_commit": True}},
}
"""
IMPORTS = """
try:
    from django.tasks import task
except ImportError:
    from django_tasks import task
"""
PREPARED = """
import django
django.setup()
import math, time
from datetime import timedelta
from django.db import transaction
from django.utils import timezone
from tasks import *

def ended(result):
    until = time.monotonic() + 30
    while not result.is_finished:
        assert time.monotonic() < until, result
        time.sleep(0.02)
        result.refresh()
    return result
"""


def project(
    folder: Path, server: BrokerServer, tasks: str, settings: str = SETTINGS
) -> Iterator[Library]:
    """Have a project with these tasks, and end its workers; none is started here."""
    library = Library(folder, server.url, IMPORTS + tasks, DJANGO, settings)
    yield library
    library.close()
