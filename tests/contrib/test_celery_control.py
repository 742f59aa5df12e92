"""Control of a worker with greenlets, whose connection for it is another one than that of its tasks."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

celery = pytest.importorskip("celery", reason="the extra celery is not installed")

import kombu.pools  # noqa: E402
from celery.worker.pidbox import gPidbox  # noqa: E402

import minibroker.contrib.celery  # noqa: E402
from minibroker.contrib.celery import control  # noqa: E402
from minibroker.contrib.celery.transport import Transport  # noqa: E402
from support.broker import BrokerServer  # noqa: E402
from support.processes import look_until  # noqa: E402


def test_control_is_heard_after_an_error_of_its_connection(
    broker_server: BrokerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other connection of the worker goes on, so nobody else would begin anew."""
    monkeypatch.setattr(gPidbox, "loop", gPidbox.loop)  # as it is now, again afterwards
    monkeypatch.setattr(control, "AGAIN_S", 0.05)
    control.install()
    minibroker.contrib.celery.register()
    app = celery.Celery("heard", broker=broker_server.url, set_as_current=False)
    threads: list[threading.Thread] = []

    def spawn(function: Any, *args: Any) -> None:
        threads.append(threading.Thread(target=function, args=args))
        threads[-1].start()

    consumer: Any = SimpleNamespace(
        app=app,
        hostname="w@green",
        connection=True,
        connection_for_read=app.connection_for_read,
        connection_errors=(OSError,),
        channel_errors=(),
        controller=SimpleNamespace(use_eventloop=False),
        pool=SimpleNamespace(spawn_n=spawn),
    )
    box = gPidbox(consumer)
    box.start(consumer)

    failed = threading.Event()

    def no_answer(*args: Any, **kwargs: Any) -> None:
        failed.set()
        raise minibroker.ConnectionLost("no answer came in time")

    def answers() -> bool:
        return bool(app.control.ping(timeout=1, limit=1))

    try:
        look_until(answers, broker_server.process, "it listens")
        with monkeypatch.context() as patched:
            patched.setattr(Transport, "drain_events", no_answer)
            assert failed.wait(30)
        look_until(answers, broker_server.process, "it listens again")
    finally:
        box.on_stop()
        for thread in threads:
            thread.join(30)
        app.close()
        kombu.pools.reset()
    assert not threads[0].is_alive()
