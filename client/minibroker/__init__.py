"""minibroker: hand slow work to workers, and never lose what was confirmed.

async with minibroker.connect("minibroker://localhost:7272") as broker:
    emails = broker.queue("emails")
    await emails.publish({"to": "bob@example.com"})
    await emails.run(handler, concurrency=8)
"""

from minibroker.broker import Broker, connect
from minibroker.confirms import Confirm, Confirms, MessageId
from minibroker.errors import (
    BadName,
    BadValue,
    BodyError,
    Busy,
    Closed,
    CommandError,
    ConnectionLost,
    DiskFull,
    IdConflict,
    LeaseLost,
    LimitReached,
    LoginRefused,
    MinibrokerError,
    NotSent,
    OutcomeUnknown,
    ProtocolError,
    QueueInUse,
    ShuttingDown,
    Timeout,
    TooLarge,
    UnknownQueue,
)
from minibroker.message import Message
from minibroker.peek import Peeked, Peeks
from minibroker.queue import Queue

__all__ = [
    "BadName",
    "BadValue",
    "BodyError",
    "Broker",
    "Busy",
    "Closed",
    "CommandError",
    "Confirm",
    "Confirms",
    "ConnectionLost",
    "DiskFull",
    "IdConflict",
    "LeaseLost",
    "LimitReached",
    "LoginRefused",
    "Message",
    "MessageId",
    "MinibrokerError",
    "NotSent",
    "OutcomeUnknown",
    "Peeked",
    "Peeks",
    "ProtocolError",
    "Queue",
    "QueueInUse",
    "ShuttingDown",
    "Timeout",
    "TooLarge",
    "UnknownQueue",
    "connect",
]
