"""Settings of a project of Django for `python -m benchmarks.django_rates`: its tasks here, or in a database."""

from __future__ import annotations

import os

import django

folder = os.environ["BENCH_FOLDER"]
kind = os.environ["BENCH_KIND"]
own = "django.tasks" if django.VERSION >= (6,) else "django_tasks"
USE_TZ = True
SECRET_KEY = "bench"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes"]
INSTALLED_APPS += [] if own == "django.tasks" else [own]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": f"{folder}/tasks.sqlite3",
        "CONN_MAX_AGE": 60,
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 60},
    }
}
if kind == "minibroker":
    INSTALLED_APPS.append("minibroker.contrib.django")
    options = {
        "url": os.environ["BENCH_URL"],
        "settings": {"durability": os.environ["BENCH_DURABILITY"]},
    }
    TASKS = {
        "default": {"BACKEND": "minibroker.contrib.django.MinibrokerBackend", "OPTIONS": options}
    }
else:
    INSTALLED_APPS.append("django_tasks_db")
    TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
    if os.environ["BENCH_DURABILITY"] == "lazy":  # a commit waits for no disk
        pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
        DATABASES["default"]["OPTIONS"] |= {"init_command": pragmas}  # type: ignore[operator]
