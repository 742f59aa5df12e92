"""minibroker: hand slow work to workers, and never lose what was confirmed.

async with minibroker.connect("minibroker://localhost:7272") as broker:
    emails = broker.queue("emails")
    await emails.publish({"to": "bob@example.com"})
    await emails.run(handler, concurrency=8)
"""

from typing import TYPE_CHECKING, Any, Final

from minibroker.aio.broker import Broker, Connecting, connect
from minibroker.aio.callables import Handler
from minibroker.aio.consumer import Consumer, Consumption
from minibroker.aio.losses import SettleErrorHook
from minibroker.aio.message import Message
from minibroker.aio.queue import Queue
from minibroker.contract.confirms import Confirm, ConfirmRun, Confirms, MessageId
from minibroker.contract.errors import (
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
from minibroker.contract.settings import Settings
from minibroker.session.peek import Peeked, Peeks
from minibroker.session.spans import Span

if TYPE_CHECKING:
    from minibroker.worker.app import App

__version__: Final = "0.1.0"

__all__ = [
    "App",
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


def __getattr__(name: str) -> Any:
    """Import `App` when it is asked for: an application that only publishes does not load the worker."""
    if name == "App":
        from minibroker.worker.app import App

        return App
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
