"""minibroker without an event loop: the same verbs, names and errors, blocking; for Flask, Django and scripts.

with minibroker.sync.connect("minibroker://localhost:7272") as broker:
    emails = broker.queue("emails")
    emails.publish({"to": "bob@example.com"})
    emails.run(handler, concurrency=8)

A broker may be shared by all threads, and held over a fork: a child opens a connection of its own when it calls.
"""

from minibroker.sync.atomic_step import Step
from minibroker.sync.batches import Batch
from minibroker.sync.broker import Broker, connect
from minibroker.sync.consumer import Consumer, Consumption
from minibroker.sync.exchange import Exchange
from minibroker.sync.message import Message
from minibroker.sync.queue import Queue
from minibroker.sync.running import Handler
from minibroker.sync.temporary import TemporaryQueue

__all__ = [
    "Batch",
    "Broker",
    "Consumer",
    "Consumption",
    "Exchange",
    "Handler",
    "Message",
    "Queue",
    "Step",
    "TemporaryQueue",
    "connect",
]
