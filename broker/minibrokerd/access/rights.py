"""One table: what each operation needs. Dispatch, documents and tests read the same rows.

A grant says which queues somebody may touch and what he may do there. The verdict is a function of the grant, the
operation and the names of all queues that it touches; nothing else counts, and nothing here knows a connection.
A dead-letter queue goes with its source: `mail.dlq` is touched by whoever may touch `mail`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import translate
from typing import Any, Final

from minibroker.contract.commands import COMMANDS
from minibroker.contract.limits import DLQ_SUFFIX

PATTERN: Final = re.compile(r"[A-Za-z0-9._*@-]{1,128}")
MOST_REMEMBERED: Final = 4_096  # verdicts of one grant


class Right(Enum):
    """What a token may do to its queues."""

    PUBLISH = "publish"
    CONSUME = "consume"
    MANAGE = "manage"
    ADMIN = "admin"  # of the server: policies, and limits that the others cannot lift


ANY: Final = frozenset(Right)


@dataclass(frozen=True, slots=True)
class Row:
    """One operation: one of the rights `any_of` is needed on each queue, or exchange, of its fields `queues`."""

    op: str
    any_of: frozenset[Right]
    queues: tuple[str, ...]
    says: str
    may_be_empty: frozenset[str]  # of these fields: an empty name is none


def _row(op: str, rights: Iterable[Right], queues: str, says: str) -> Row:
    names = queues.split()
    may_be_empty = frozenset(
        field.name for field in COMMANDS[op].fields if field.default in ("", None)
    )
    return Row(op, frozenset(rights), tuple(names), says, may_be_empty)


_OWN: Final = "of its own connection only"
_HELD: Final = "messages that it was handed"
RIGHTS: Final[Mapping[str, Row]] = {
    row.op: row
    for row in (
        _row("hello", ANY, "", "any token that is valid"),
        _row("resume", ANY, "", "the token of the session; of what was begun, only in its queues"),
        _row("attach", ANY, "", "the token of the session"),
        _row("publish", {Right.PUBLISH}, "queue", "makes the queue, where the server does so"),
        _row("consume", {Right.CONSUME}, "queue", "makes the queue, where the server does so"),
        _row("cancel", ANY, "", _OWN),
        _row("receive", {Right.CONSUME}, "queue", "makes the queue, where the server does so"),
        _row("begin", {Right.CONSUME}, "queue", _HELD),
        _row("ack", {Right.CONSUME}, "queue", _HELD),
        _row("complete", {Right.CONSUME}, "queue", _HELD),
        _row("progress", {Right.CONSUME}, "queue", _HELD),
        _row("result", {Right.PUBLISH, Right.CONSUME}, "queue", "of messages of its own queues"),
        _row("nack", {Right.CONSUME}, "queue", _HELD),
        _row("reject", {Right.CONSUME}, "queue", _HELD),
        _row("release", {Right.CONSUME}, "queue", _HELD),
        _row("extend", {Right.CONSUME}, "queue", _HELD),
        _row("peek", {Right.CONSUME, Right.MANAGE}, "queue", "shows bodies"),
        _row("redrive", {Right.MANAGE}, "queue", "from the dead-letter queue to its source"),
        _row("redrive_start", {Right.MANAGE}, "queue", "as `redrive`"),
        _row("redrive_show", {Right.CONSUME, Right.MANAGE}, "queue", ""),
        _row("redrive_stop", {Right.MANAGE}, "queue", ""),
        _row("error_groups", {Right.CONSUME, Right.MANAGE}, "queue", "shows texts of errors"),
        _row("purge", {Right.MANAGE}, "queue", ""),
        _row("queue_set", {Right.MANAGE}, "queue", ""),
        _row("queue_show", ANY, "queue", ""),
        _row("key_set", {Right.MANAGE}, "queue", ""),
        _row("keys", ANY, "queue", ""),
        _row("queue_delete", {Right.MANAGE}, "queue", "with its dead-letter queue"),
        _row("stats", ANY, "queue", "without a queue: those that it may touch, and the server"),
        _row("accept", ANY, "", _OWN),
        _row("times", ANY, "queue", ""),
        _row("ping", ANY, "", ""),
        _row("goodbye", ANY, "", ""),
        _row("withdraw", ANY, "", _OWN),
        _row("move", {Right.MANAGE}, "queue target", "both queues"),
        _row("queue_declare", ANY, "queue", "changes no settings that somebody chose"),
        _row("explain", {Right.CONSUME, Right.MANAGE}, "queue", "tells only of its own queues"),
        _row("retime", {Right.MANAGE}, "queue", ""),
        _row("cancel_messages", {Right.MANAGE}, "queue", "also those that workers have"),
        _row("pause", {Right.MANAGE}, "queue", "of clients: only where it may manage every queue"),
        _row("unpause", {Right.MANAGE}, "queue", "likewise"),
        _row("pauses", ANY, "", "of its own queues; of clients, likewise"),
        _row("schedule_set", {Right.PUBLISH}, "queue", "makes the queue, where the server does so"),
        _row("schedules", ANY, "", "those of its own queues"),
        _row("schedule_delete", {Right.PUBLISH, Right.MANAGE}, "", "those of its own queues"),
        _row("schedule_pause", {Right.MANAGE}, "", "those of its own queues"),
        _row(
            "route",
            {Right.PUBLISH},
            "exchange",
            "also to queues that it may not touch: who binds them may",
        ),
        _row(
            "exchange_set", {Right.MANAGE}, "name alternate", "the exchange, and the alternate one"
        ),
        _row("exchanges", ANY, "name", "without a name: those that it may touch"),
        _row("exchange_delete", {Right.MANAGE}, "name", ""),
        _row("bind", {Right.MANAGE}, "exchange queue target", "the exchange, and what it leads to"),
        _row("unbind", {Right.MANAGE}, "exchange queue target", "likewise"),
        _row("bindings", ANY, "exchange", "shows names of queues"),
        _row("schema_set", {Right.MANAGE}, "queue", "makes the queue, where the server does so"),
        _row("schema_show", ANY, "queue", ""),
        _row("policy_set", {Right.ADMIN}, "", "of all queues, whichever the token is for"),
        _row("policies", {Right.MANAGE, Right.ADMIN}, "", "all of them"),
        _row("policy_delete", {Right.ADMIN}, "", "of all queues, whichever the token is for"),
        _row(
            "log_group_set",
            {Right.CONSUME, Right.MANAGE},
            "queue",
            "the log; a group is read as `LOG@GROUP`",
        ),
        _row("log_group_seek", {Right.MANAGE}, "queue", "the log"),
        _row("log_show", ANY, "queue", ""),
        _row("log_read", {Right.CONSUME}, "queue", ""),
        _row("schedule_run", {Right.PUBLISH}, "", "those of its own queues"),
    )
}
assert set(RIGHTS) == set(COMMANDS), "every operation needs exactly one row"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a token may have or do; 0: no limit. All but the rate are of its queues, whoever filled them."""

    connections: int = 0
    queues: int = 0
    messages: int = 0  # that wait
    bytes: int = 0  # of these
    rate: int = 0  # messages published in a second

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self.connections or self.queues or self.messages or self.bytes or self.rate)


@dataclass(frozen=True, slots=True)
class Grant:
    """What one token allows. `id` is that of the token, `name` that of its owner: several tokens may have one."""

    name: str
    id: str
    may: frozenset[Right]
    patterns: tuple[str, ...]
    limits: Limits = Limits()
    _matches: Any = field(init=False, repr=False, compare=False)
    _known: dict[tuple[str, str | None], bool] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        # Of characters that PATTERN allows only the star means something; what it becomes never backtracks.
        pattern = "|".join(map(translate, self.patterns)) or "(?!)"
        object.__setattr__(self, "_matches", re.compile(pattern).match)

    def covers(self, queue: str) -> bool:
        """Whether this queue is one of its own."""
        return self._matches(queue.removesuffix(DLQ_SUFFIX)) is not None

    def allows(self, op: str, queue: str | None) -> bool:
        """Return the verdict on one operation on one queue, or on none; remembered, for most are asked again."""
        known = self._known.get((op, queue))
        if known is None:
            if len(self._known) >= MOST_REMEMBERED:  # names that a client makes up
                self._known.clear()
            known = self._known[op, queue] = not verdict(
                self, op, () if queue is None else (queue,)
            )
        return known


def verdict(grant: Grant, op: str, queues: Iterable[str]) -> str:
    """Return why the grant does not allow `op` on these queues; empty: it does."""
    row = RIGHTS[op]
    if not grant.may & row.any_of:
        needed = " or ".join(sorted(right.value for right in row.any_of))
        return f"{op} needs the right to {needed}, which the token of {grant.name!r} does not give"
    for queue in queues:
        if not grant.covers(queue):
            return f"{queue!r:.140} is no queue that the token of {grant.name!r} is for"
    return ""


def reach(grant: Grant) -> tuple[bool, bool]:
    """Return whether a grant may look at everything, and change everything: what the HTTP port shows is not cut.

    It shows bodies of all queues, as `peek` does, and publishes, redrives and deletes.
    """
    is_whole = "*" in grant.patterns
    looks = is_whole and bool(grant.may & RIGHTS["peek"].any_of)
    return looks, looks and {Right.PUBLISH, Right.MANAGE} <= grant.may


def touched(op: str, fields: Any) -> list[str]:
    """Return the names of the queues that an operation with these fields (as attributes) touches.

    What an answer about no one queue shows is chosen by `Grant.covers`.
    """
    row = RIGHTS[op]
    names = ((field, getattr(fields, field)) for field in row.queues)
    return [name for field, name in names if name or field not in row.may_be_empty]
