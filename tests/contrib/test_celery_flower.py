"""Flower on a worker whose broker is this one: what docs/guide/celery.md says of it. `make flower` installs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("celery", reason="the extra celery is not installed")
pytest.importorskip("flower", reason="flower is not installed: make flower")

from celery_workers import HERE, StartWorker

from support.processes import TETHER, look_until
from support.services import free_port


class Flower:
    """The process, and what it answers over HTTP."""

    def __init__(self, url: str, log: Path) -> None:
        self.port = free_port()
        env = {**os.environ, "SHOP_BROKER": url, "SHOP_SAID": os.devnull}
        env["FLOWER_UNAUTHENTICATED_API"] = "true"  # what changes something wants a login otherwise
        command = [sys.executable, "-m", "celery", "-A", "shop", "flower"]
        command += ["--address=127.0.0.1", f"--port={self.port}"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TETHER, *command],
                env=env,
                cwd=HERE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def ask(self, path: str, body: dict[str, Any] | None = None) -> str:
        """Return what it answers to a GET, or a POST of JSON; HTTPError if it refuses."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", data)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read(), "utf-8")

    def is_up(self) -> bool:
        """Return whether it answers."""
        try:
            self.ask("healthcheck")
        except OSError:
            return False
        return True

    def task(self, id: str) -> str:
        """Return the state of a task, empty if it has not heard of it."""
        try:
            return str(json.loads(self.ask(f"api/task/info/{id}")).get("state"))
        except urllib.error.HTTPError:
            return ""


@pytest.fixture
def flower(broker_url: str, tmp_path: Path) -> Iterator[Flower]:
    """Flower, as it starts beside a worker."""
    flower = Flower(broker_url, tmp_path / "flower.log")
    try:
        look_until(flower.is_up, flower.process, "it answers")
        yield flower
    finally:
        flower.process.terminate()
        flower.process.wait(15)


def test_it_shows_tasks_and_workers_and_changes_them(
    shop: Any, start_worker: StartWorker, flower: Flower, tmp_path: Path
) -> None:
    """Tasks by events, workers by `inspect`, revoke by `control`; its tab of the broker knows no such scheme."""
    gate = tmp_path / "gate"
    worker = start_worker("-P", "prefork", "-c", "1", "-E", "-n", "w@flower")
    done = shop.say_task.delay("done")
    look_until(lambda: flower.task(done.id) == "SUCCESS", worker.process, "it heard of the end")
    workers = json.loads(flower.ask("api/workers?refresh=1&workername=w@flower"))
    assert workers["w@flower"]["active_queues"][0]["name"] == "celery"
    running = shop.wait.delay("long", str(gate))
    look_until(lambda: flower.task(running.id) == "STARTED", worker.process, "it runs")
    flower.ask(f"api/task/revoke/{running.id}?terminate=true", {})
    look_until(lambda: flower.task(running.id) == "REVOKED", worker.process, "it was ended")
    assert 'flower_events_total{task="say"' in flower.ask("metrics")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        flower.ask("broker")
