"""The side of Celery on Redis: a queue for each tenant, priorities of the transport, `beat` for the schedule."""

from __future__ import annotations

import os
import sys
import time

from celery import Celery

app = Celery(broker=os.environ["STORY_URL"])
app.conf.update(
    worker_prefetch_multiplier=1,
    task_acks_late=True,
    broker_transport_options={
        "queue_order_strategy": "round_robin",
        "priority_steps": list(range(10)),
        "sep": ":",
    },
    task_ignore_result=True,
    beat_schedule_filename=os.environ["STORY_STARTS"] + ".beat",
    beat_schedule={
        "tick": {"task": "job", "schedule": 2.0, "args": ["cron"], "options": {"queue": "jobs"}}
    },
)


def start(tenant: str) -> None:
    """Say that a job starts, and work."""
    with open(os.environ["STORY_STARTS"], "a") as starts:
        starts.write(f"{time.time_ns() // 1_000_000} {tenant}\n")
    time.sleep(8 if tenant == "same" else 0.05)


@app.task(name="job")
def job(tenant: str) -> None:
    """Any job."""
    start(tenant)


@app.task(name="limited", rate_limit="10/s")
def limited(tenant: str) -> None:
    """A job of the tenant that has a rate: one task name for each such tenant."""
    start(tenant)


# What is added: the task, how many, the queue, and the priority (0 is the highest with Redis).
ADD = {
    "big": (job, 200, "big", 5),
    "small": (job, 10, "small", 5),
    "limited": (limited, 30, "jobs", 5),
    "free": (job, 30, "jobs", 5),
    "normal": (job, 100, "jobs", 9),
    "urgent": (job, 1, "jobs", 0),
    "same": (job, 1, "jobs", 5),
}

if __name__ == "__main__":
    if sys.argv[1] == "work":
        words = [
            "worker",
            "--concurrency",
            "1",
            "--queues",
            "big,small,jobs",
            "--loglevel",
            "ERROR",
        ]
        app.worker_main([*words, "--hostname", f"{os.getpid()}@story"])
    elif sys.argv[1] == "schedule":
        app.start(["beat", "--loglevel", "ERROR"])
    else:
        task, count, queue, priority = ADD[sys.argv[2]]
        for _ in range(count):
            task.apply_async([sys.argv[2]], queue=queue, priority=priority)
