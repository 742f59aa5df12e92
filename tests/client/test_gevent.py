"""Under gevent: its threads are greenlets, and a lease is renewed by a real one."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import minibroker.sync
from support.broker import BrokerServer
from support.processes import DEADLINE_S
from support.renewals import LEASE_S, see_renewed

COMPUTES = """
import gevent.monkey
gevent.monkey.patch_all()
import asyncio, os, sys
import minibroker

async def main():
    async with minibroker.connect(sys.argv[1]) as broker:
        queue = broker.queue("reports")
        [message] = await queue.receive(wait=30)
        async with message.process():
            while not os.path.exists(sys.argv[2]):
                pass
        counts = (await queue.stats())["queues"]["reports"]
        print(message.lost, counts["acked"], counts["expired"])

asyncio.run(main())
"""


@pytest.mark.parametrize("is_imported", [True, False])
def test_where_poll_was_taken_away_the_refusal_names_who_does_that(
    monkeypatch: pytest.MonkeyPatch, is_imported: bool
) -> None:
    """eventlet deletes what it has no version of; gevent may be there, too, and has patched nothing."""
    monkeypatch.setitem(sys.modules, "gevent.monkey", import_module("gevent.monkey"))
    if not is_imported:
        monkeypatch.delitem(sys.modules, "gevent.monkey")
    monkeypatch.delattr("select.poll")
    with pytest.raises(RuntimeError, match=r"select\.poll is not there, as under eventlet"):
        minibroker.sync.connect("memory://", lazy=True)


def test_a_handler_that_computes_keeps_its_lease_under_gevent(
    broker_server: BrokerServer, tmp_path: Path
) -> None:
    """It is renewed although the handler does not give way once."""
    with minibroker.sync.connect(broker_server.url) as broker:
        queue = broker.queue("reports", lease_ms=1_000 * LEASE_S)
        id = queue.publish(b"x").id
    enough = tmp_path / "enough"
    computing = subprocess.Popen(
        [sys.executable, "-c", COMPUTES, broker_server.url, str(enough)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        see_renewed(broker_server.url, "reports", id)
        enough.touch()
        said, complained = computing.communicate(timeout=DEADLINE_S)
    finally:
        computing.kill()
        computing.wait()
    assert (said.split(), computing.returncode) == (["False", "1", "0"], 0), complained
