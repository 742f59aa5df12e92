"""`manage.py minibroker_worker` and the signals, files and words that come to it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django_project import IMPORTS, PREPARED, SETTINGS, project
from libraries import RAN, Library

import minibroker.sync
from support.broker import BrokerServer
from support.processes import LOOK_EVERY_S, lasts, look_until

TASKS = """
import asyncio, pathlib, time

@task
def waits():
    ran("begins")
    while not pathlib.Path("gate").exists():
        time.sleep(0.02)
    ran("ends")

@task
async def waits_in_loop():
    ran("begins")
    while not pathlib.Path("gate").exists():
        await asyncio.sleep(0.02)
    ran("ends")
"""
OTHERS = """
import django
own = "django.tasks" if django.VERSION >= (6,) else "django_tasks"
TASKS["any"] = {"BACKEND": BACKEND, "QUEUES": []}
TASKS["else"] = {"BACKEND": f"{own}.backends.dummy.DummyBackend"}
"""
STOPPED = 71  # as `minibroker worker` has it: what ran had not ended


@pytest.fixture
def shop(tmp_path: Path, broker_server: BrokerServer) -> Iterator[Library]:
    """A project with tasks; no worker is started."""
    yield from project(tmp_path, broker_server, TASKS)


def enqueue_three(shop: Library) -> None:
    """Enqueue two tasks and one more; their ids are in the file `ids`."""
    tasks = "[waits.enqueue(), waits_in_loop.enqueue(), waits.enqueue()]"
    shop.call(f"{PREPARED}open('ids', 'w').write(' '.join(each.id for each in {tasks}))\n")


def statuses(shop: Library) -> str:
    """Return how the three stand, and how often each was begun."""
    each = "(found := waits.get_backend().get_result(id)).status + ' ' + str(found.attempts)"
    said = f"', '.join({each} for id in open('ids').read().split())"
    shop.call(f"{PREPARED}open('said', 'w').write({said})\n")
    return (shop.folder / "said").read_text()


def begin(shop: Library, *flags: str) -> subprocess.Popen[bytes]:
    """Start a worker for two at a time, and return it when two have begun."""
    worker = shop.start("--concurrency", "2", "--queues", "default", *flags)
    look_until(lambda: shop.ran()["begins"] == 2, worker, "two have begun", 60)
    return worker


def says(shop: Library, worker: subprocess.Popen[bytes], text: str) -> None:
    """Wait until a worker prints a text."""
    look_until(lambda: text in shop.log, worker, text, 60)


def test_a_worker_that_is_asked_to_stop_ends_what_runs_and_takes_nothing_new(
    shop: Library, broker_server: BrokerServer
) -> None:
    """A thread and a coroutine; what they came to is kept, and the third task waits for another worker."""
    enqueue_three(shop)
    worker = begin(shop)
    worker.send_signal(signal.SIGTERM)
    says(shop, worker, "draining")
    (shop.folder / "gate").touch()
    assert worker.wait(60) == 0, shop.log
    assert shop.ran() == {"begins": 2, "ends": 2}
    assert statuses(shop) == "SUCCESSFUL 1, SUCCESSFUL 1, READY 0"
    with minibroker.sync.connect(broker_server.url) as broker:
        [left] = broker.queue("default").peek()
    assert (left.info["state"], left.history) == ("READY", [])


@pytest.mark.parametrize("hurry", ["a deadline", "a second signal"])
def test_what_does_not_end_in_time_is_run_again_by_another_worker(
    hurry: str, shop: Library, broker_server: BrokerServer
) -> None:
    """It is given back uncharged, and its result knows of the attempt that counts."""
    enqueue_three(shop)
    worker = begin(shop, "--drain-timeout", "100ms" if hurry == "a deadline" else "1h")
    worker.send_signal(signal.SIGTERM)
    if hurry == "a second signal":
        says(shop, worker, "draining")

        while lasts(
            worker, LOOK_EVERY_S
        ):  # one that comes too soon behind the first is the same asking
            worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == STOPPED, shop.log
    with minibroker.sync.connect(broker_server.url) as broker:
        left = broker.queue("default").peek()
        assert [(each.info["state"], each.history) for each in left] == [("READY", [])] * 3
    (shop.folder / "gate").touch()
    shop.start("--burst").wait(60)
    assert statuses(shop) == "SUCCESSFUL 1, SUCCESSFUL 1, SUCCESSFUL 1", shop.log
    assert shop.ran() == {"begins": 5, "ends": 3}


VERSION = """
@task
def version():
    return {number}
"""


def test_changed_code_is_run_by_a_worker_that_reloads(shop: Library) -> None:
    """As `runserver` does; the tasks of before are the tasks of after."""
    module = shop.folder / "tasks.py"
    module.write_text(RAN + IMPORTS + VERSION.format(number=1))
    worker = shop.start("--reload")
    shop.call(PREPARED + "assert ended(version.enqueue()).return_value == 1\n")

    def noticed() -> bool:
        module.write_text(RAN + IMPORTS + VERSION.format(number=2))
        return "reloading" in shop.log

    look_until(noticed, worker, "it notices", 60)
    look_until(lambda: shop.log.count("worker_started") > 1, worker, "it is replaced", 60)
    shop.call(PREPARED + "assert ended(version.enqueue()).return_value == 2\n")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0, shop.log


REFUSED = (
    ("--backend nobody", "TASKS has no 'nobody'"),
    ("--backend else", "is not minibroker's"),
    ("--backend any", "say --queues"),
    ("--backend any --queues a,,b", "'' is no queue name"),
    ("--backend any --queues mails.dlq", "dead-letter queue"),
    ("--queues mials", "has no 'mials'"),
)
# Django takes half a second to start, so one process is asked for all of them.
TRYING = f"""
import contextlib, io
from django.core.management import execute_from_command_line

for words, why in {REFUSED!r}:
    said, ended = io.StringIO(), None
    with contextlib.redirect_stderr(said):
        try:
            execute_from_command_line(["manage.py", "minibroker_worker", *words.split()])
        except SystemExit as left:
            ended = left.code
    assert (ended, why in said.getvalue()) == (1, True), (words, ended, said.getvalue())
    assert "Traceback" not in said.getvalue(), said.getvalue()
"""


def test_words_that_cannot_be_are_refused(tmp_path: Path, broker_server: BrokerServer) -> None:
    """Before it looks for the broker, by Django."""
    for shop in project(tmp_path, broker_server, TASKS, SETTINGS + OTHERS):
        shop.call(TRYING)


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (REFUSED[0][0], 1, REFUSED[0][1]),
        ("--concurrency 0", 2, "concurrency is 0"),
        ("--processes 0", 2, "0 is not in the range"),
        ("--drain-timeout soon", 2, "soon"),
    ],
)
def test_a_worker_that_cannot_be_ends_with_its_code(
    words: str, code: int, why: str, tmp_path: Path, broker_server: BrokerServer
) -> None:
    """What Django refuses with 1, what the worker refuses with its 2."""
    for shop in project(tmp_path, broker_server, TASKS, SETTINGS + OTHERS):
        command = [sys.executable, "-m", *shop.command, *words.split()]
        done = subprocess.run(
            command, cwd=shop.folder, env=shop.env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, done
        assert why in done.stderr
        assert "Traceback" not in done.stderr
