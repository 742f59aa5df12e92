"""Rows of the command table: exchanges, which bindings lead from them to queues, and publishing to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from minibroker.contract import limits
from minibroker.contract.fields import AFTER, ATTEMPTS, LEASE, NAMES, PRIORITY, TTL, text, whole
from minibroker.contract.rows import REQUIRED, Answer, Command, Field, Kind, Phase

# How an exchange chooses among its bindings.
DIRECT, TOPIC, FANOUT, HEADERS, HASH = EXCHANGE_TYPES = (
    "direct",
    "topic",
    "fanout",
    "headers",
    "hash",
)
# What becomes of a message that no binding takes, where there is no alternate exchange.
REFUSE, DROP = UNROUTABLE = "refuse", "drop"

_MAIN = (Phase.OPEN,)
_NAME = text("name", limits.MAX_QUEUE_NAME_CHARS, "Name of the exchange.", REQUIRED)
_EXCHANGE = text("exchange", limits.MAX_QUEUE_NAME_CHARS, "Name of the exchange.", REQUIRED)
_BINDING = (
    _EXCHANGE,
    text("queue", limits.MAX_QUEUE_NAME_CHARS, "The queue that it leads to; empty: an exchange."),
    text("target", limits.MAX_QUEUE_NAME_CHARS, "The exchange that it leads to; empty: a queue."),
    text("pattern", limits.MAX_PATTERN_BYTES, "What it takes; section 5.15."),
)

EXCHANGE_COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "route",
        _MAIN,
        Answer.CONFIRM,
        (
            _EXCHANGE,
            text("routing_key", limits.MAX_PATTERN_BYTES, "Routing key of all."),
            Field(
                "match",
                Kind.MAP,
                (),
                limits.MAX_MATCHED_HEADERS,
                "entries",
                "What an exchange of type headers looks at, of all.",
            ),
            whole(
                "count",
                limits.MAX_MESSAGES_PER_FRAME,
                "Messages in this part; 0 is a protocol error.",
                "messages",
            ),
            whole("delay_ms", limits.MAX_DELAY_MS, "As of publish.", "ms", default=0),
            text("key", limits.MAX_KEY_BYTES, "Key of all, if no column says."),
            whole("encoding", 1, "Encoding of all, if no column says.", default=0),
            NAMES,
            ATTEMPTS,
            LEASE,
            PRIORITY,
            TTL,
        ),
        ("delay_ms", "key", "encoding"),
        "Store messages in every queue that the bindings of an exchange lead to.",
    ),
    Command(
        "exchange_set",
        _MAIN,
        Answer.REPLY,
        (
            _NAME,
            text(
                "type", limits.MAX_MODE_CHARS, "direct, topic, fanout, headers or hash.", REQUIRED
            ),
            text(
                "unroutable",
                limits.MAX_MODE_CHARS,
                "What no binding takes: refuse or drop; empty: as it is, refuse of a new one.",
            ),
            text(
                "alternate",
                limits.MAX_QUEUE_NAME_CHARS,
                "The exchange that gets what no binding takes; empty: none. Left out: as it is.",
                None,
            ),
        ),
        (),
        "Make an exchange, or change what it does with what no binding takes; its type stays.",
        repeatable=True,
    ),
    Command(
        "exchanges",
        _MAIN,
        Answer.REPLY,
        (
            text("name", limits.MAX_QUEUE_NAME_CHARS, "One exchange; empty: all."),
            text("after", limits.MAX_QUEUE_NAME_CHARS, "`next` of the page before."),
        ),
        (),
        "Show exchanges, by their names.",
        repeatable=True,
    ),
    Command(
        "exchange_delete",
        _MAIN,
        Answer.REPLY,
        (_NAME,),
        (),
        "End an exchange with its bindings, and those that lead to it; queues stay as they are.",
        repeatable=True,
    ),
    Command(
        "bind",
        _MAIN,
        Answer.REPLY,
        _BINDING,
        (),
        "Let an exchange lead to a queue, which is made where the server does so, or to another exchange.",
        repeatable=True,
    ),
    Command(
        "unbind",
        _MAIN,
        Answer.REPLY,
        _BINDING,
        (),
        "End a binding; what it has led to a queue stays there.",
        repeatable=True,
    ),
    Command(
        "bindings",
        _MAIN,
        Answer.REPLY,
        (_EXCHANGE, replace(AFTER, high=limits.MAX_PATTERN_BYTES + limits.MAX_CURSOR_BYTES)),
        (),
        "Show the bindings of an exchange, a page at a time.",
        repeatable=True,
    ),
)
