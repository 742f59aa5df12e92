"""The operations: each row of the command table joined with what the server does about it.

A part has its row (`part.row`, set where headers are read), and that is asked: nothing else in the server compares
the names of operations. To add one: a row in `contract/commands.py`, one here and in `access/rights.py`, and its
function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from minibroker.contract.commands import COMMANDS
from minibroker.contract.rows import Phase
from minibrokerd.core.model.inputs import Attach, Frame, Hello, Needs, Resume, Scope
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs import (
    bulk,
    cancelling,
    explaining,
    listing,
    requests,
    retiming,
    settling,
)
from minibrokerd.core.verbs.settling import Settlement

# How a frame with this operation may be named: by a sequence, by a request number, or not at all.
SEQUENCE: Final = 1
REQUEST: Final = 2
NAMELESS: Final = 4

Login = Callable[[int, Any, memoryview, Scope | None], Hello | Resume | Attach]


@dataclass(frozen=True, slots=True)
class Operation:
    """What the server does about one operation.

    Exactly one of `login`, `request` and `settle` is its function; publish has `core/verbs/publishing.py`.
    """

    op: str
    named: int
    needs: Needs = Needs.NOTHING
    alone: bool = False  # it is the only part of its frame
    makes: str = ""  # the field that names a queue which it may make
    settles: bool = False  # its runs are of deliveries: what is lost is answered
    counts_lost: bool = True  # what it lost stands in the metrics
    outcome: bool = False  # its record has the outcome of a frame that it is all of
    login: Login | None = None
    request: Callable[[Store, Frame, Any], None] | None = None
    settle: Callable[[Settlement], None] | None = None
    # Of its row in the command table.
    phases: tuple[Phase, ...] = field(init=False)
    columns: tuple[str, ...] = field(init=False)
    errors: bool = field(init=False)  # columns of errors follow its runs

    def __post_init__(self) -> None:
        row = COMMANDS[self.op]
        object.__setattr__(self, "phases", row.phases)
        object.__setattr__(self, "columns", row.columns)
        object.__setattr__(self, "errors", "error_class" in row.columns)


def _login(op: str, login: Login) -> Operation:
    return Operation(op, NAMELESS, alone=True, login=login)


def _settlement(
    op: str,
    settle: Callable[[Settlement], None],
    named: int = SEQUENCE | REQUEST,
    *,
    counts_lost: bool = True,
    outcome: bool = False,
) -> Operation:
    return Operation(
        op,
        named,
        Needs.RESERVE,
        settles=True,
        counts_lost=counts_lost,
        outcome=outcome,
        settle=settle,
    )


def _request(
    op: str,
    request: Callable[[Store, Frame, Any], None],
    named: int = REQUEST,
    *,
    makes: str = "",
) -> Operation:
    return Operation(op, named, alone=True, makes=makes, request=request)


OPERATIONS: Final[Mapping[str, Operation]] = {
    row.op: row
    for row in (
        _login("hello", lambda on, part, runs, scope: Hello(on, part.client, scope)),
        _login(
            "resume",
            lambda on, part, runs, scope: Resume(on, part.session, part.client, runs, scope),
        ),
        _login("attach", lambda on, part, runs, scope: Attach(on, part.session)),
        Operation("publish", SEQUENCE, Needs.ROOM, makes="queue", outcome=True),
        _settlement("begin", settling.begin, SEQUENCE | REQUEST | NAMELESS),
        _settlement("ack", settling.ack, outcome=True),
        _settlement("nack", settling.nack),
        _settlement("reject", settling.reject),
        _settlement("release", settling.release),
        # A renewal that an ack overtook is no trouble of anybody's.
        _settlement("extend", settling.extend, counts_lost=False),
        _request("consume", requests.consume, makes="queue"),
        _request("cancel", requests.cancel),
        _request("receive", requests.receive, makes="queue"),
        _request("withdraw", requests.withdraw_request),
        _request("peek", listing.peek),
        _request("stats", listing.stats),
        _request("explain", explaining.explain),
        _request("retime", retiming.retime),
        _request("cancel_messages", cancelling.cancel_messages),
        _request("redrive", bulk.redrive_request),
        _request("move", bulk.move_request, makes="target"),
        _request("purge", bulk.purge_request),
        _request("queue_set", requests.queue_set, makes="queue"),
        _request("queue_declare", requests.queue_declare, makes="queue"),
        _request("queue_show", requests.queue_show),
        _request("queue_delete", requests.queue_delete),
        _request("ping", requests.ping, REQUEST | NAMELESS),
        _request("goodbye", requests.goodbye, REQUEST | NAMELESS),
    )
}
assert set(OPERATIONS) == set(COMMANDS), "every operation needs exactly one row"
