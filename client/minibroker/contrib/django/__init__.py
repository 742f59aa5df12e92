"""Django's Tasks on minibroker: `"BACKEND": "minibroker.contrib.django.MinibrokerBackend"` in `TASKS`.

    interface.py     Django's own interface, or the same one for older versions of it
    task_records.py  a task and its result as JSON, in both directions
    backend.py       `MinibrokerBackend`: what the application calls
    running.py       one message in the worker, from its start to its end
    admin.py         the page of dead tasks; models.py, its name and permissions, without a table
    tasks_app.py     the app that `manage.py minibroker_worker` runs

docs/guide/django-tasks.md has the rest, decision 72 why.
"""

from minibroker.contrib.django.backend import MinibrokerBackend, ResultRefused

__all__ = ["MinibrokerBackend", "ResultRefused"]
