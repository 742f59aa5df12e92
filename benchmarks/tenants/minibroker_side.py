"""The side of minibroker: one queue; a tenant is a key."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import minibroker.sync
from minibroker.sync import Broker


def limited(broker: Broker) -> None:
    """Ten a second of a key; what has no key has no such limit."""
    jobs = broker.queue("jobs")
    jobs.set(key_rate=10)
    jobs.publish_many(["limited"] * 30, key="limited")


ADD: dict[str, Callable[[Broker], object]] = {
    "big": lambda broker: broker.queue("jobs").publish_many(["big"] * 200, key="big"),
    "small": lambda broker: broker.queue("jobs").publish_many(["small"] * 10, key="small"),
    "limited": limited,
    "free": lambda broker: broker.queue("jobs").publish_many(["free"] * 30),
    "normal": lambda broker: broker.queue("jobs").publish_many(["normal"] * 100),
    "urgent": lambda broker: broker.queue("jobs").publish("urgent", priority=9),
    "same": lambda broker: broker.queue("jobs").publish("same", unique_key="invoice-7"),
    "cron": lambda broker: broker.schedules.set("tick", "*/2 * * * * *", "jobs", "cron"),
}


def main() -> None:
    """Work, or add."""
    with minibroker.sync.connect(os.environ["STORY_URL"]) as broker:
        if sys.argv[1] == "add":
            ADD[sys.argv[2]](broker)
            return
        with broker.queue("jobs").consume() as messages:
            for message in messages:
                with message.process():
                    with open(os.environ["STORY_STARTS"], "a") as starts:
                        starts.write(f"{time.time_ns() // 1_000_000} {message.body}\n")
                    time.sleep(8 if message.body == "same" else 0.05)


main()
