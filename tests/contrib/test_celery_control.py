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
from support.broker import BrokerServer  # noqa: E402


def test_control_is_heard_after_its_connection_was_refused(
    broker_server: BrokerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is away while a worker starts: nobody but the greenlet itself would begin anew."""
    monkeypatch.setattr(gPidbox, "loop", gPidbox.loop)  # as it is now, again afterwards
    monkeypatch.setattr(control, "AGAIN_S", 0.05)
    control.install()
    minibroker.contrib.celery.register()
    app = celery.Celery("heard", broker=broker_server.url, set_as_current=False)
    failed = threading.Event()
    refuse = True

    def connection_for_read() -> Any:
        if refuse:
            failed.set()
            raise ConnectionRefusedError("it is away")
        return app.connection_for_read()

    threads: list[threading.Thread] = []

    def spawn(function: Any, *args: Any) -> None:
        threads.append(threading.Thread(target=function, args=args))
        threads[-1].start()

    consumer: Any = SimpleNamespace(
        app=app,
        hostname="w@green",
        connection=True,
        connection_for_read=connection_for_read,
        connection_errors=(OSError,),
        channel_errors=(),
        controller=SimpleNamespace(use_eventloop=False),
        pool=SimpleNamespace(spawn_n=spawn),
    )
    box = gPidbox(consumer)
    box.start(consumer)
    assert failed.wait(30)
    refuse = False
    try:
        assert app.control.ping(timeout=20, limit=1) == [{"w@green": {"ok": "pong"}}]
    finally:
        box.on_stop()
        for thread in threads:
            thread.join(30)
        app.close()
        kombu.pools.reset()
    assert not threads[0].is_alive()
