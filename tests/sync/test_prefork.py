"""Servers that fork, gunicorn and uWSGI: the parent keeps what it has, each child opens its own connection."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from urllib.request import urlopen

import pytest

import minibroker.sync
from support.broker import BrokerServer
from support.processes import DEADLINE_S
from support.renewals import LEASE_S
from support.services import Service, free_port

HERE = Path(__file__).parent
UWSGI = Path(sys.executable).with_name("uwsgi")
KINDS = [
    pytest.param(kind, preload, id=f"{kind}{'-preload' if preload else ''}")
    for kind in ("sync", "gthread", "gevent")
    for preload in (False, True)
]
Start = Callable[..., "Site"]


class Site:
    """A web server at work."""

    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        self._port = port
        service.await_ready()

    def call(self, path: str) -> tuple[int, int, str]:
        """Return process, session and result of a call."""
        with urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=DEADLINE_S) as answer:
            pid, session, said = answer.read().decode().split()
        return int(pid), int(session), said

    def sessions(self, path: str, processes: int) -> dict[int, int]:
        """Call from several threads until so many processes have answered; return the session of each."""
        found: dict[int, set[int]] = {}
        deadline = monotonic() + DEADLINE_S

        def call_all() -> None:
            while len(found) < processes and monotonic() < deadline:
                pid, session, _ = self.call(path)
                found.setdefault(pid, set()).add(session)

        threads = [threading.Thread(target=call_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == processes, self.service.output
        return {pid: session for pid, (session,) in found.items()}

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to stop; it must not wait for a thread until it loses its patience (30 s)."""
        asked = monotonic()
        self.service.process.send_signal(number)
        self.service.await_end(asked)
        assert self.service.slowest_stop_s < 20, self.service.output
        assert "Traceback" not in self.service.output, self.service.output


@pytest.fixture
def start(tmp_path: Path, broker_server: BrokerServer) -> Iterator[Start]:
    """Start a web server: its command, what it says when it is ready, variables."""
    services: list[Service] = []

    def started(command: list[str], says: str, **variables: str) -> Site:
        port = free_port()
        environment = {"MINIBROKER_URL": broker_server.url, "PYTHONPATH": str(HERE), **variables}
        command = [each.replace("PORT", str(port)) for each in command]
        services.append(Service("site", command, tmp_path, environment, says))
        return Site(services[-1], port)

    yield started
    for service in services:
        service.close()


def gunicorn(kind: str, preload: bool) -> list[str]:
    """Return the command of a gunicorn with two workers."""
    flags = ["--workers", "2", "--worker-class", kind, "--no-control-socket"]
    flags += ["--threads", "4"] if kind == "gthread" else []
    flags += ["--preload"] if preload else []
    config = ["--config", str(HERE / "gunicorn_parent.py"), "--bind", "127.0.0.1:PORT"]
    return [sys.executable, "-m", "gunicorn", *flags, *config, "prefork_app:application"]


@pytest.mark.parametrize(("kind", "preload"), KINDS)
def test_gunicorn(start: Start, broker_server: BrokerServer, kind: str, preload: bool) -> None:
    """Each worker has a session of its own, one that is killed is replaced, and threads hold up no end."""
    if kind == "gevent" and importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent is not installed")
    site = start(gunicorn(kind, preload), "Booting worker")
    first = site.sessions("/publish", 2)
    assert len(set(first.values())) == 2, "two processes share a session"
    os.kill(min(first), signal.SIGKILL)
    then = site.sessions("/publish", 2)
    assert len({*first.values(), *then.values()}) == 3, "one was opened anew, or shared"
    site.sessions("/begin", 2)
    site.stop()


def test_gunicorn_leaves_the_parent_what_it_had_before_the_fork(
    start: Start, broker_server: BrokerServer
) -> None:
    """Its lease is renewed while children come, work and go; it settles its message in the end."""
    site = start(gunicorn("gthread", True), "Booting worker", EAGER=str(LEASE_S))
    sessions = site.sessions("/publish", 2)
    assert len(set(sessions.values())) == 2
    assert site.call("/steal")[2] == "LeaseLost"
    os.kill(min(sessions), signal.SIGKILL)
    with minibroker.sync.connect(broker_server.url) as broker:
        assert broker.queue("jobs").receive(wait=LEASE_S + 1) == [], "the parent has lost it"
        site.stop()
        assert "the master has settled its own" in site.service.output
        counters = broker.queue("jobs").stats()["queues"]["jobs"]
    assert (counters["acked"], counters["expired"], counters["worker_lost"]) == (1, 0, 0)


@pytest.mark.skipif(not UWSGI.exists(), reason="uWSGI is not installed")
@pytest.mark.parametrize(
    "flags",
    [(), ("--enable-threads", "--threads", "2"), ("--lazy-apps",)],
    ids=["plain", "threads", "lazy-apps"],
)
def test_uwsgi(start: Start, flags: tuple[str, ...]) -> None:
    """It loads the application and then forks, unless it is told to be lazy."""
    command = [str(UWSGI), "--master", "--processes", "2", "--need-app", "--die-on-term", *flags]
    command += ["--http-socket", "127.0.0.1:PORT", "--module", "prefork_app:application"]
    site = start(command, "spawned uWSGI worker 2")
    first = site.sessions("/publish", 2)
    assert len(set(first.values())) == 2, "two processes share a session"
    os.kill(min(first), signal.SIGKILL)
    site.sessions("/publish", 2)
    if flags:
        site.sessions("/begin", 2)
    site.stop()
