"""Workers and their supervisor as a service manager and a bad day treat them; test_supervising.py has the rest."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_working import HEAD
from worker_process import WorkerProcess

from support.broker import BrokerServer

StartWorker = Callable[..., WorkerProcess]

SOURCE = (
    HEAD
    + """
import os, sys

@app.handler("jobs")
async def work(message):
    if message.body == "die" and message.attempt == 1:
        os._exit(9)
"""
)


def test_a_process_that_takes_too_much_memory_is_replaced(start_worker: StartWorker) -> None:
    worker = start_worker(HEAD + 'big = b"x" * 200_000_000\n' + SOURCE, "--max-memory", "100M")
    assert worker.says("worker_stopped", reason="max_memory")["code"] == 3
    worker.says("worker_started", 2)


def test_sighup_replaces_the_workers_one_by_one(start_worker: StartWorker) -> None:
    worker = start_worker(SOURCE, "--processes", "2")
    worker.says("worker_started", 2)
    first = {event["pid"] for event in worker.events("worker_started")}
    worker.signal(signal.SIGHUP)
    worker.says("worker_started", 4)
    later = [event["pid"] for event in worker.events("worker_started")][2:]
    assert not first & set(later)
    worker.signal()
    assert worker.ends() == 0


def test_a_burst_ends_when_all_are_done(start_worker: StartWorker) -> None:
    assert start_worker(SOURCE, "--processes", "2", "--burst").ends() == 0


def test_workers_whose_supervisor_was_killed_drain(start_worker: StartWorker) -> None:
    worker = start_worker(SOURCE, "--processes", "2")
    worker.says("worker_started", 2)
    pidfds = [os.pidfd_open(event["pid"]) for event in worker.events("worker_started")]
    worker.signal(signal.SIGKILL)
    for pidfd in pidfds:
        _wait(pidfd)
    assert len(worker.events("worker_stopped", reason="the supervisor is gone")) == 2


def _wait(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(30_000), "it goes on without its supervisor"
    os.close(pidfd)


def test_a_broker_that_goes_away_and_comes_back_is_told_once_each(
    start_worker: StartWorker, broker_server: BrokerServer
) -> None:
    worker = start_worker(SOURCE, "--health-file", "health")
    worker.sees("health")  # the broker has answered
    broker_server.kill()
    worker.says("broker_away")
    broker_server.restart()
    worker.says("broker_back")
    worker.signal()
    assert worker.ends() == 0
    said: list[dict[str, Any]] = worker.events("broker_away") + worker.events("broker_back")
    assert len(said) == 2


def test_a_worker_waits_for_its_broker_and_a_burst_does_not(start_worker: StartWorker) -> None:
    nowhere = "minibroker://127.0.0.1:1"
    source = SOURCE.replace("App()", "App(connect_timeout=0.2)")
    waits = start_worker(source, url=nowhere)
    assert start_worker(source, "--burst", url=nowhere).ends() == 69
    waits.says("broker_away")
    waits.signal()
    assert waits.ends() == 0


def test_a_service_manager_hears_from_the_supervisor_alone(
    start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        worker = start_worker(SOURCE, "--processes", "2")
        said = b""
        while not (b"WATCHDOG=1" in said and b"READY=1" in said):
            said += manager.recv(4_096) + b"\n"
        assert said.count(b"READY=1") == 1
        worker.signal()
        assert worker.ends() == 0
