#!/usr/bin/env bash
# celery 5.7.0, taskiq 0.13.0, arq 0.28.0, huey 3.5.4, procrastinate 3.10.0: one datetime without an offset, two instants and a
# refusal.
#
# "In an hour, at half past nine" is written as datetime.now() + timedelta(hours=1). On a machine whose zone is five hours
# behind UTC arq and huey run the job in one hour; celery and taskiq take the digits for UTC: four hours ago, so at once.
# Celery does so although its setting `timezone` says America/Bogota, which its pages give as the zone of the app; and a naive
# `expires` in two hours becomes an expiration of 0: a broker that honours it drops the task, a worker revokes it.
# procrastinate refuses. Moving from one to another moves the schedules without an error. What to do: pass aware times only
# (datetime.now(timezone.utc)), the one form that all five read alike, or delays.
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install celery==5.7.0 kombu==5.7.0 taskiq==0.13.0 arq==0.28.0 \
    huey==3.5.4 procrastinate==3.10.0 tzdata==2026.6

TZ=COT5 "$folder/venv/bin/python" - 2> "$folder/errors" <<'EOF' | tee "$folder/seen"
from datetime import datetime, timedelta, timezone

from arq.utils import to_unix_ms
from celery import Celery
from celery.worker.request import Request
from huey import MemoryHuey
from procrastinate import App
from procrastinate.testing import InMemoryConnector
from taskiq.cli.scheduler.run import to_tz_aware

UTC = timezone.utc


def job():
    pass


def by_celery(when):
    app = Celery(broker="memory://")
    app.conf.timezone = "America/Bogota"
    app.task(job, name="job").apply_async(eta=when, expires=when + timedelta(hours=1))
    with app.connection() as connection:
        message = connection.SimpleQueue("celery").get(block=False)
    print("celery's message lives for", round(int(message.properties["expiration"]) / 3_600_000), "hours")
    return Request(message, app=app).eta


ways = {
    "celery": by_celery,
    "taskiq": to_tz_aware,
    "arq": lambda when: datetime.fromtimestamp(to_unix_ms(when) / 1000, UTC),
    "huey": lambda when: MemoryHuey().task()(job).s(eta=when).eta.replace(tzinfo=UTC),
    "procrastinate": lambda when: App(connector=InMemoryConnector()).configure_task("job", schedule_at=when).job.scheduled_at,
}
for name, way in ways.items():
    for kind, zone in (("naive", None), ("aware", UTC)):
        try:
            left = way(datetime.now(zone) + timedelta(hours=1)) - datetime.now(UTC)
            print(f"{name}, {kind}: in {round(left.total_seconds() / 3600)} hours")
        except ValueError as error:
            print(f"{name}, {kind}: {error}")
EOF

diff "$folder/seen" - <<'EOF'
celery's message lives for 0 hours
celery, naive: in -4 hours
celery's message lives for 2 hours
celery, aware: in 1 hours
taskiq, naive: in -4 hours
taskiq, aware: in 1 hours
arq, naive: in 1 hours
arq, aware: in 1 hours
huey, naive: in 1 hours
huey, aware: in 1 hours
procrastinate, naive: Timezone aware datetime is required
procrastinate, aware: in 1 hours
EOF
echo "as it was: four hours ago, in an hour, or refused"
