"""The operations: each row of the command table joined with what the server does about it.

A part has its row (`part.row`, set where headers are read), and that is asked: nothing else in the server compares
the names of operations. To add one: a row in `contract/*_commands.py`, one here and in `access/rights.py`, and its
function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from minibroker.contract.commands import COMMANDS
from minibroker.contract.rows import Phase
from minibrokerd.core.model.claims import Claims
from minibrokerd.core.model.columns import slice_of_publish
from minibrokerd.core.model.deliveries import Run
from minibrokerd.core.model.inputs import (
    NEEDS_NOTHING,
    NEEDS_RESERVE,
    NEEDS_ROOM,
    NEEDS_SPACE,
    Attach,
    Frame,
    Hello,
    Resume,
    Scope,
    Slice,
)
from minibrokerd.core.model.sessions import Result
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs import (
    acking,
    bulk,
    cancelling,
    exchanging,
    explaining,
    going_on,
    grouping,
    keying,
    listing,
    logs,
    pausing,
    policing,
    publishing,
    reading,
    redriving,
    requests,
    results,
    retiming,
    routing,
    scheduling,
    settling,
    timing,
    typing_bodies,
)
from minibrokerd.core.verbs.runs import slice_of_runs
from minibrokerd.core.verbs.settling import Settlement

# How a frame with this operation may be named: by a sequence, by a request number, or not at all.
SEQUENCE: Final = 1
REQUEST: Final = 2
NAMELESS: Final = 4

Check = Callable[[Store, Frame, Any, Slice, Claims | None], Any]
Apply = Callable[[Any], tuple[Result, Sequence[Run], int]]
Login = Callable[[int, Any, memoryview, Scope | None], Hello | Resume | Attach]


@dataclass(frozen=True, slots=True)
class Operation:
    """What the server does about one operation.

    It has a function `login`, or `request`, or three for a part that may share its frame: `slices` says what is
    its own of the rest of columns and lengths; `check` returns the work, or refuses, and changes nothing; `apply`
    cannot fail. All parts of a frame are checked before one is applied.
    """

    op: str
    named: int
    needs: int = NEEDS_NOTHING
    alone: bool = False  # it is the only part of its frame
    makes: str = ""  # the field that names a queue which it may make
    owned: str = ""  # the one that names a queue which is no exclusive one of another session
    gives_names: bool = False  # it makes a queue where `makes` is empty
    settles: bool = False  # its runs are of deliveries: what is lost is answered
    ends: bool = False  # what it settles is over; others make it larger in the log
    counts_lost: bool = True  # what it lost stands in the metrics
    steps: bool = False  # it may share a frame with a publish
    login: Login | None = None
    request: Callable[[Store, Frame, Any], None] | None = None
    slices: Callable[[Any, memoryview, memoryview], tuple[int, int, int]] | None = None
    check: Check | None = None
    apply: Apply | None = None
    settle: Callable[[Settlement], None] | None = None  # what `apply` of a settlement does
    # Of its row in the command table.
    phases: tuple[Phase, ...] = field(init=False)
    columns: tuple[str, ...] = field(init=False)
    errors: bool = field(init=False)  # columns of errors follow its runs
    texts: int = field(init=False)  # string columns behind its runs

    def __post_init__(self) -> None:
        row = COMMANDS[self.op]
        object.__setattr__(self, "phases", row.phases)
        object.__setattr__(self, "columns", row.columns)
        object.__setattr__(self, "errors", "error_class" in row.columns)
        object.__setattr__(self, "texts", len(row.columns) - 1)


def _login(op: str, login: Login) -> Operation:
    return Operation(op, NAMELESS, alone=True, login=login)


def _settlement(
    op: str,
    settle: Callable[[Settlement], None],
    named: int = SEQUENCE | REQUEST,
    *,
    counts_lost: bool = True,
    ends: bool = False,
    steps: bool = False,
    check: Check = settling.check_settlement,
    apply: Apply = settling.settle,
) -> Operation:
    return Operation(
        op,
        named,
        NEEDS_RESERVE,
        settles=True,
        ends=ends,
        counts_lost=counts_lost,
        steps=steps,
        slices=slice_of_runs,
        check=check,
        apply=apply,
        settle=settle,
    )


def _request(
    op: str,
    request: Callable[[Store, Frame, Any], None],
    named: int = REQUEST,
    *,
    makes: str = "",
    owned: str = "",
    needs: int = NEEDS_NOTHING,
    gives_names: bool = False,
) -> Operation:
    return Operation(
        op,
        named,
        needs,
        alone=True,
        makes=makes,
        owned=owned,
        gives_names=gives_names,
        request=request,
    )


OPERATIONS: Final[Mapping[str, Operation]] = {
    row.op: row
    for row in (
        _login("hello", lambda on, part, runs, scope: Hello(on, part.client, scope, part.version)),
        _login(
            "resume",
            lambda on, part, runs, scope: Resume(
                on, part.session, part.client, runs, scope, part.version
            ),
        ),
        _login("attach", lambda on, part, runs, scope: Attach(on, part.session)),
        Operation(
            "publish",
            SEQUENCE,
            NEEDS_ROOM,
            makes="queue",
            steps=True,
            slices=slice_of_publish,
            check=publishing.check_publish,
            apply=publishing.publish,
        ),
        Operation(
            "route",
            SEQUENCE,
            NEEDS_ROOM,
            steps=True,
            slices=slice_of_publish,
            check=routing.check_route,
            apply=routing.route,
        ),
        _settlement("begin", going_on.begin, SEQUENCE | REQUEST | NAMELESS),
        _settlement(
            "ack",
            settling.ack,
            ends=True,
            steps=True,
            check=acking.check_ack,
            apply=acking.apply_ack,
        ),
        # An ack, with a result for each run.
        _settlement("complete", settling.ack, steps=True),
        _settlement("nack", settling.nack),
        _settlement("reject", settling.reject),
        _settlement("release", settling.release),
        # A renewal that an ack overtook is no trouble of anybody's.
        _settlement("extend", going_on.extend, counts_lost=False),
        # What is said of a message that somebody else has by now is of no interest.
        _settlement("progress", going_on.progress, counts_lost=False),
        _request("result", results.result),
        _request("consume", requests.consume, makes="queue", owned="queue"),
        _request("cancel", requests.cancel),
        _request("receive", requests.receive, makes="queue", owned="queue"),
        _request("withdraw", requests.withdraw_request),
        _request("peek", listing.peek),
        _request("stats", listing.stats),
        _request("times", timing.times),
        _request("explain", explaining.explain),
        _request("retime", retiming.retime, owned="queue"),
        _request("cancel_messages", cancelling.cancel_messages, owned="queue"),
        _request("redrive", bulk.redrive_request, owned="queue"),
        _request("redrive_start", redriving.redrive_start, owned="queue"),
        _request("redrive_show", redriving.redrive_show),
        _request("redrive_stop", redriving.redrive_stop, owned="queue"),
        _request("error_groups", grouping.error_groups),
        _request("move", bulk.move_request, makes="target", owned="queue"),
        _request("purge", bulk.purge_request, owned="queue"),
        _request("queue_set", requests.queue_set, makes="queue", owned="queue"),
        _request(
            "queue_declare",
            requests.queue_declare,
            makes="queue",
            owned="queue",
            gives_names=True,
        ),
        _request("queue_show", requests.queue_show),
        _request("queue_delete", requests.queue_delete, owned="queue"),
        _request("key_set", keying.key_set, owned="queue"),
        _request("keys", keying.keys),
        _request("schedule_set", scheduling.schedule_set, makes="queue", needs=NEEDS_SPACE),
        _request("pause", pausing.pause),
        _request("unpause", pausing.unpause),
        _request("pauses", pausing.pauses),
        _request("schedules", scheduling.schedules),
        _request("schedule_delete", scheduling.schedule_delete),
        _request("schedule_pause", scheduling.schedule_pause),
        _request("schedule_run", scheduling.schedule_run, needs=NEEDS_SPACE),
        _request("exchange_set", exchanging.exchange_set),
        _request("exchanges", exchanging.exchanges),
        _request("exchange_delete", exchanging.exchange_delete),
        _request("bind", exchanging.bind, makes="queue", owned="queue"),
        _request("unbind", exchanging.unbind, owned="queue"),
        _request("bindings", exchanging.bindings),
        _request("schema_set", typing_bodies.schema_set, makes="queue", owned="queue"),
        _request("schema_show", typing_bodies.schema_show),
        _request("policy_set", policing.policy_set),
        _request("policies", policing.policies),
        _request("policy_delete", policing.policy_delete),
        _request("log_group_set", logs.log_group_set, owned="queue"),
        _request("log_group_seek", logs.log_group_seek, owned="queue"),
        _request("log_show", logs.log_show),
        _request("log_read", reading.log_read),
        _request("accept", requests.accept, REQUEST | NAMELESS),
        _request("ping", requests.ping, REQUEST | NAMELESS),
        _request("goodbye", requests.goodbye, REQUEST | NAMELESS),
    )
}
assert set(OPERATIONS) == set(COMMANDS), "every operation needs exactly one row"
