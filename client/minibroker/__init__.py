"""minibroker: hand slow work to workers, and never lose what was confirmed.

async with minibroker.connect("minibroker://localhost:7272") as broker:
    emails = broker.queue("emails")
    await emails.publish({"to": "bob@example.com"})
    await emails.run(handler, concurrency=8)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from minibroker import sync as sync
    from minibroker.aio.atomic_step import Step
    from minibroker.aio.batches import Batch, Batches
    from minibroker.aio.broker import Broker, Connecting, LazyBroker, connect
    from minibroker.aio.callables import Handler
    from minibroker.aio.consumer import Consumer, Consumption
    from minibroker.aio.exchange import Exchange
    from minibroker.aio.losses import SettleErrorHook
    from minibroker.aio.message import Message
    from minibroker.aio.queue import Queue
    from minibroker.aio.retained_log import RetainedLog
    from minibroker.aio.temporary import TemporaryQueue
    from minibroker.contract.confirms import Confirm, ConfirmRun, Confirms, MessageId, Routed
    from minibroker.contract.ends import After
    from minibroker.contract.errors import (
        BadName,
        BadValue,
        BodyError,
        Busy,
        Closed,
        CommandError,
        ConnectionLost,
        DiskFull,
        ExclusiveQueue,
        IdConflict,
        LeaseLost,
        LimitReached,
        LoginRefused,
        MessageCancelled,
        MessageFailed,
        MinibrokerError,
        NotAllowed,
        NotLeading,
        NotSent,
        NotWaiting,
        OutcomeUnknown,
        ProtocolError,
        QueueFull,
        QueueInUse,
        SchemaMismatch,
        SettingsDiffer,
        ShuttingDown,
        Timeout,
        TokenRefused,
        TooLarge,
        UnknownExchange,
        UnknownMessage,
        UnknownQueue,
        UnknownSchedule,
        Unroutable,
    )
    from minibroker.contract.settings import Settings
    from minibroker.session.dead import ErrorGroup, Redrive, Where
    from minibroker.session.exchange_wishes import Binding, ExchangeInfo
    from minibroker.session.explanation import Explanation
    from minibroker.session.json_schema import JsonSchema
    from minibroker.session.key_wishes import KeySetting
    from minibroker.session.log_pages import LogMessage, LogPage
    from minibroker.session.log_wishes import GroupInfo, LogInfo
    from minibroker.session.pause_wishes import Pause
    from minibroker.session.peek import Peeked, Peeks
    from minibroker.session.policy_wishes import Policy
    from minibroker.session.queue_times import QueueTimes
    from minibroker.session.result_wish import Progress
    from minibroker.session.spans import Span
    from minibroker.worker.app import App

__version__: Final = "0.1.0"

__all__ = [
    "After",
    "App",
    "BadName",
    "BadValue",
    "Batch",
    "Batches",
    "Binding",
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
    "ErrorGroup",
    "Exchange",
    "ExchangeInfo",
    "ExclusiveQueue",
    "Explanation",
    "GroupInfo",
    "Handler",
    "IdConflict",
    "JsonSchema",
    "KeySetting",
    "LazyBroker",
    "LeaseLost",
    "LimitReached",
    "LogInfo",
    "LogMessage",
    "LogPage",
    "LoginRefused",
    "Message",
    "MessageCancelled",
    "MessageFailed",
    "MessageId",
    "MinibrokerError",
    "NotAllowed",
    "NotLeading",
    "NotSent",
    "NotWaiting",
    "OutcomeUnknown",
    "Pause",
    "Peeked",
    "Peeks",
    "Policy",
    "Progress",
    "ProtocolError",
    "Queue",
    "QueueFull",
    "QueueInUse",
    "QueueTimes",
    "Redrive",
    "RetainedLog",
    "Routed",
    "SchemaMismatch",
    "Settings",
    "SettingsDiffer",
    "SettleErrorHook",
    "ShuttingDown",
    "Span",
    "Step",
    "TemporaryQueue",
    "Timeout",
    "TokenRefused",
    "TooLarge",
    "UnknownExchange",
    "UnknownMessage",
    "UnknownQueue",
    "UnknownSchedule",
    "Unroutable",
    "Where",
    "__version__",
    "connect",
]

# Where each name is defined: it is imported when it is asked for first, so that `import minibroker.sync` does not
# load asyncio, nor an application that only publishes the worker.
_HOMES: Final = {
    "minibroker.aio.atomic_step": "Step",
    "minibroker.aio.batches": "Batch Batches",
    "minibroker.aio.broker": "Broker Connecting LazyBroker connect",
    "minibroker.aio.callables": "Handler",
    "minibroker.aio.consumer": "Consumer Consumption",
    "minibroker.aio.losses": "SettleErrorHook",
    "minibroker.aio.exchange": "Exchange",
    "minibroker.aio.message": "Message",
    "minibroker.aio.retained_log": "RetainedLog",
    "minibroker.aio.queue": "Queue",
    "minibroker.aio.temporary": "TemporaryQueue",
    "minibroker.contract.confirms": "Confirm ConfirmRun Confirms MessageId Routed",
    "minibroker.contract.ends": "After",
    "minibroker.contract.errors": (
        "BadName BadValue BodyError Busy Closed CommandError ConnectionLost DiskFull ExclusiveQueue "
        "IdConflict LeaseLost LimitReached LoginRefused MessageCancelled MessageFailed MinibrokerError "
        "NotAllowed NotLeading NotSent NotWaiting OutcomeUnknown ProtocolError QueueFull QueueInUse "
        "SchemaMismatch SettingsDiffer ShuttingDown Timeout TokenRefused TooLarge UnknownExchange "
        "UnknownMessage UnknownQueue UnknownSchedule Unroutable"
    ),
    "minibroker.contract.settings": "Settings",
    "minibroker.session.dead": "ErrorGroup Redrive Where",
    "minibroker.session.exchange_wishes": "Binding ExchangeInfo",
    "minibroker.session.log_pages": "LogMessage LogPage",
    "minibroker.session.log_wishes": "GroupInfo LogInfo",
    "minibroker.session.explanation": "Explanation",
    "minibroker.session.json_schema": "JsonSchema",
    "minibroker.session.key_wishes": "KeySetting",
    "minibroker.session.pause_wishes": "Pause",
    "minibroker.session.peek": "Peeked Peeks",
    "minibroker.session.policy_wishes": "Policy",
    "minibroker.session.result_wish": "Progress",
    "minibroker.session.spans": "Span",
    "minibroker.session.queue_times": "QueueTimes",
    "minibroker.worker.app": "App",
}
_MODULE_OF: Final = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name == "sync":
        return import_module("minibroker.sync")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "sync"})
