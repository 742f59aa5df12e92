"""`celery worker` itself, on a real broker: what it runs, gives back and lets die."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("celery", reason="the extra celery is not installed")

import minibroker.sync
from support.broker import BrokerServer
from support.processes import TETHER, look_until

HERE = Path(__file__).parent
StartWorker = Callable[..., "Worker"]


class Worker:
    """One `celery worker` of the shop, and what its tasks said."""

    def __init__(self, directory: Path, url: str, *flags: str) -> None:
        self._said = directory / "said"
        self._log = directory / "worker.log"
        env = {**os.environ, "SHOP_BROKER": url, "SHOP_SAID": str(self._said)}
        command = [sys.executable, "-m", "celery", "-A", "shop", "worker", "-l", "INFO", *flags]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TETHER, *command],
                env=env,
                cwd=HERE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its pool is a group of processes
            )

    def lines(self) -> list[str]:
        """Return what was said until now."""
        return self._said.read_text("utf-8").splitlines() if self._said.exists() else []

    def says(self, text: str, times: int = 1) -> None:
        """Return when a task has said a line so often."""
        try:
            look_until(lambda: self.lines().count(text) >= times, self.process, repr(text))
        except AssertionError as error:
            raise AssertionError(f"{error}\nsaid: {self.lines()}\nlog: {self.log()}") from error

    def log(self) -> str:
        """Return what the worker printed."""
        return self._log.read_text("utf-8", "replace")


@pytest.fixture
def start_worker(tmp_path: Path, broker_server: BrokerServer) -> Iterator[StartWorker]:
    """Start as many workers as a test needs: `start_worker("-P", "solo")`."""
    workers: list[Worker] = []

    def start(*flags: str) -> Worker:
        workers.append(Worker(tmp_path, broker_server.url, *flags))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        try:
            worker.process.wait(15)
        finally:
            worker.process.kill()


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broker_server: BrokerServer) -> Iterator:
    """The application, as a web process has it."""
    monkeypatch.setenv("SHOP_BROKER", broker_server.url)
    monkeypatch.setenv("SHOP_SAID", str(tmp_path / "said"))
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    import shop

    yield shop
    shop.app.close()


def test_tasks_run_and_what_is_refused_is_dead(
    shop, start_worker: StartWorker, broker_server: BrokerServer
) -> None:
    """A plain task, one with a countdown, one that asks to be rejected, and one that nobody has."""
    shop.say_task.delay("now")
    shop.say_task.apply_async(("later",), countdown=1)
    shop.refuse.delay("no stock")
    shop.app.send_task("nobody.has.this")
    with minibroker.sync.connect(broker_server.url) as broker:
        (delayed,) = broker.queue("celery").peek(state="DELAYED")
        assert delayed.headers["task"] == "say", "the broker holds what is for later"
        worker = start_worker("-P", "prefork", "-c", "2")
        worker.says("now 0")
        worker.says("later 0")
        dead = broker.queue("celery.dlq")
        look_until(lambda: len(dead.peek()) == 2, worker.process, "both were rejected")
        died = {each.headers["task"]: each.history[-1] for each in dead.peek()}
    assert {each["cause"] for each in died.values()} == {"rejected"}
    assert "no stock" in str(died["refuse"]), died
    assert set(died) == {"refuse", "nobody.has.this"}
