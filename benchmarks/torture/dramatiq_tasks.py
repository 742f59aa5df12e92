"""The task of Dramatiq, on the broker that the environment names."""

from __future__ import annotations

import os
import time

import dramatiq
from benchmarks.torture.notes import LEASE_S, note
from dramatiq.brokers.redis import RedisBroker

url = os.environ["TORTURE_URL"]
broker: dramatiq.Broker
if url.startswith("minibroker"):
    from minibroker.contrib.dramatiq import MinibrokerBroker

    broker = MinibrokerBroker(url, settings={"lease_ms": LEASE_S * 1_000})
else:
    broker = RedisBroker(url=url, heartbeat_timeout=LEASE_S * 1_000)
dramatiq.set_broker(broker)


@dramatiq.actor
def work(number: int, seconds: float) -> None:
    """Begin, work for a moment, end."""
    note("b", number)
    time.sleep(seconds)
    note("e", number)


def send(number: int, seconds: float, delay_s: float) -> None:
    """Publish one task; raises what the library raises."""
    work.send_with_options(args=(number, seconds), delay=int(delay_s * 1_000) or None)
