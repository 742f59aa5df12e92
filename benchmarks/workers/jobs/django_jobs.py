"""The tasks for Django's Tasks, on minibroker or in a database."""

from __future__ import annotations

from typing import Any

from benchmarks.workers.tally import note_latency, tally

task: Any
try:
    from django.tasks import task
except ImportError:  # before Django 6.0
    from django_tasks import task

done = tally().done


@task
def noop(body: str) -> None:
    """Do nothing."""
    done()


@task
def late(sent: float) -> None:
    """Note how long ago this was sent."""
    note_latency(sent)
