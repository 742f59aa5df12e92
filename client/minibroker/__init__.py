"""minibroker: hand slow work to workers, and never lose what was confirmed.

async with minibroker.connect("minibroker://localhost:7272") as broker:
    emails = broker.queue("emails")
    await emails.publish({"to": "bob@example.com"})
    await emails.run(handler, concurrency=8)
"""

from typing import Final

from minibroker.broker import Broker, Connecting, connect
from minibroker.callables import Handler
from minibroker.confirms import Confirm, ConfirmRun, Confirms, MessageId
from minibroker.consumer import Consumer, Consumption
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
from minibroker.losses import SettleErrorHook
from minibroker.message import Message
from minibroker.peek import Peeked, Peeks
from minibroker.queue import Queue
from minibroker.settings import Settings
from minibroker.spans import Span

__version__: Final = "0.1.0"

__all__ = [
    "BadName",
    "BadValue",
    "BodyError",
    "Broker",
    "Busy",
    "Closed",
    "CommandError",
    "Confirm",
    "ConfirmRun",
    "Confirms",
    "Connecting",
    "ConnectionLost",
    "Consumer",
    "Consumption",
    "DiskFull",
    "Handler",
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
    "Settings",
    "SettleErrorHook",
    "ShuttingDown",
    "Span",
    "Timeout",
    "TooLarge",
    "UnknownQueue",
    "__version__",
    "connect",
]
