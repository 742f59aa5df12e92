"""The errors a caller can meet, in one table: code, class, whether a retry can help, what to do.

Sorted by what the caller can still do: a `CommandError` refused one command and left the connection
as it was; a `ProtocolError` ended the connection; a `NotSent` or `OutcomeUnknown` says what is known
of a publish whose confirm did not come in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minibroker.contract.confirms import Confirm


class MinibrokerError(Exception):
    """Base of every error of this package.

    `code` is stable and stands in `ERRORS`; `retryable` says whether the same call can succeed later;
    `retry_ms` is the server's hint how long to wait first (None: no hint).

    The error of a `publish_many` that failed says what became of each body: `confirms[index]` is the confirm of
    one that is stored, else None; `failed` has the error of each other one, by index.
    """

    code = "error"
    retryable = False
    confirms: Sequence[Confirm | None] | None = None
    failed: Mapping[int, MinibrokerError] | None = None

    def __init__(self, text: str, *, retry_ms: int | None = None) -> None:
        super().__init__(text)
        self.retry_ms = retry_ms


class CommandError(MinibrokerError):
    """The server refused one command and changed nothing; the connection goes on."""


class ProtocolError(MinibrokerError):
    """A peer broke protocol.md; the connection cannot be used again."""

    code = "protocol_error"


class ConnectionLost(MinibrokerError, ConnectionError):
    """The server cannot be reached, or went away and did not come back in time."""

    code = "connection_lost"
    retryable = True


class LoginRefused(MinibrokerError):
    """One side did not accept the other: protocol version, unknown session, bad secret, or certificate."""

    code = "login_refused"
    ends_session = True  # False: the session, if there was one, is not what was refused


class TokenRefused(LoginRefused):
    """The server asks for a token, and did not get one that is valid."""

    code = "token_refused"
    ends_session = False


class LeaseLost(CommandError):
    """The lease ended before the settlement arrived; another consumer may hold the message now."""

    code = "lease_lost"


class MessageCancelled(LeaseLost):
    """Somebody cancelled the message while it was held or in work: nothing that is said of it counts any more."""

    code = "cancelled"


class DiskFull(CommandError):
    """The server found no room for the frame; nothing was stored or changed."""

    code = "disk_full"
    retryable = True


class Busy(CommandError):
    """The server is at a limit; nothing was stored. `retry_ms` says when to come back."""

    code = "busy"
    retryable = True


class QueueFull(CommandError):
    """The queue is at its limit, and its overflow is `reject`; nothing was stored."""

    code = "queue_full"


class NotWaiting(CommandError):
    """A message that is held, in work, dead or not there was to be ready at another time; nothing was changed."""

    code = "not_waiting"


class MessageFailed(CommandError):
    """A message whose result was asked for ended without one.

    `state` is that of a row of `minibroker.contract.ends`, as DEAD or CANCELLED, and `reason` its code, as
    `explain` has it; of a dead one `error_class` and `error_text` are of its last attempt.
    """

    code = "message_failed"
    state = ""
    reason = ""
    error_class = ""
    error_text = ""


class UnknownQueue(CommandError):
    """The queue does not exist, and this command does not make it."""

    code = "unknown_queue"


class UnknownMessage(CommandError):
    """Of a message that is named nothing is known: it ended and nothing of it is kept, or it never was."""

    code = "unknown_message"


class UnknownSchedule(CommandError):
    """There is no schedule of that name; or it is of a queue that is not this client's."""

    code = "unknown_schedule"


class UnknownExchange(CommandError):
    """There is no exchange of that name."""

    code = "unknown_exchange"


class Unroutable(CommandError):
    """No binding of the exchange takes the message, and it does not drop what nobody takes; nothing was stored."""

    code = "unroutable"


class SchemaMismatch(CommandError):
    """A body does not fit the schema of its queue; the text says where and why, and nothing was stored."""

    code = "schema_mismatch"


class QueueInUse(CommandError):
    """The queue has consumers, or messages that nobody said may be lost; nothing was deleted."""

    code = "queue_in_use"


class ExclusiveQueue(CommandError):
    """The queue belongs to the session of another client, or was to be this one's and is not; nothing was done."""

    code = "exclusive_queue"


class BadName(CommandError):
    """A queue name that protocol.md, section 2, does not allow, or one that is reserved."""

    code = "bad_name"


class BadValue(CommandError):
    """A field is outside its range; the text names the field and the range."""

    code = "bad_value"


class TooLarge(CommandError):
    """A message or a frame is larger than the server takes."""

    code = "too_large"


class NotAllowed(CommandError):
    """The token of this client does not allow this command, or not on this queue; nothing was changed."""

    code = "not_allowed"


class IdConflict(CommandError):
    """The same frame sequence came with other bytes; the first one stands."""

    code = "id_conflict"


class OutcomeUnknown(MinibrokerError, TimeoutError):
    """The publish was written, but no confirm came in time: it may be stored or not."""

    code = "outcome_unknown"


class NotSent(MinibrokerError, TimeoutError):
    """The deadline passed before the publish was written: it is certainly not stored."""

    code = "not_sent"
    retryable = True


class Timeout(MinibrokerError, TimeoutError):
    """No answer came within the call's deadline; asking again is safe."""

    code = "timeout"
    retryable = True


class LimitReached(CommandError):
    """A number of things that the server bounds is reached; the text names it, and nothing was changed.

    `retryable` is true where others may soon need less: sessions, and frames that are still arriving.
    """

    code = "limit_reached"


class ShuttingDown(CommandError):
    """The server is stopping; it takes nothing new. The client reconnects by itself."""

    code = "shutting_down"
    retryable = True


class NotLeading(MinibrokerError):
    """The server stands by while another one leads; `leader` is the host:port of that one, "" if it knows of none.

    The client library goes there, or to the next address that it was given.
    """

    code = "not_leading"
    retryable = True
    leader = ""


class SettingsDiffer(MinibrokerError):
    """A queue has other settings than this program declares; `differs` has (declared, has) of each by name."""

    code = "settings_differ"
    differs: Mapping[str, tuple[int | str, int | str]] = MappingProxyType({})

    @classmethod
    def of(cls, queue: str, differs: Mapping[str, tuple[int | str, int | str]]) -> SettingsDiffer:
        """Return the error for what differs."""
        each = (f"{name} is {has!r} and not {asked!r}" for name, (asked, has) in differs.items())
        error = cls(f"the queue {queue!r} has other settings than declared: {', '.join(each)}")
        error.differs = differs
        return error


class BodyError(MinibrokerError):
    """A message body is not what its encoding says; `message.raw` still holds the bytes."""

    code = "body_error"


class Closed(MinibrokerError):
    """The connection was closed by its owner; nothing more can be asked of it."""

    code = "closed"


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """One row of the error table; printed as one row of protocol.md, section "Errors"."""

    error: type[MinibrokerError]
    on_wire: bool  # the server sends it; the others arise in the client
    advice: str


_ROWS = (
    ErrorRow(
        ProtocolError, True, "The connection is closed. Fix the client; a retry meets the same."
    ),
    ErrorRow(LoginRefused, True, "Check the protocol version; start a new session with hello."),
    ErrorRow(TokenRefused, True, "Give a token that is valid: `minibroker token list`."),
    ErrorRow(LeaseLost, True, "Drop the result: the message was, or will be, handed out again."),
    ErrorRow(MessageCancelled, False, "Stop the work; the message has ended, and comes to nobody."),
    ErrorRow(DiskFull, True, "Retry later; free disk space on the server."),
    ErrorRow(Busy, True, "Retry after retry_ms."),
    ErrorRow(QueueFull, True, "Publish less, let its workers catch up, or raise its limits."),
    ErrorRow(UnknownQueue, True, "Check the spelling; `minibroker queues` lists them."),
    ErrorRow(
        UnknownMessage,
        True,
        "Name messages that have not ended, or let their queues keep results (result_ms).",
    ),
    ErrorRow(UnknownSchedule, True, "Check the spelling; `minibroker schedule list` shows them."),
    ErrorRow(UnknownExchange, True, "Check the spelling; `minibroker exchange list` shows them."),
    ErrorRow(
        Unroutable,
        True,
        "Bind a queue, set an alternate exchange, or let the exchange drop what nobody takes.",
    ),
    ErrorRow(
        SchemaMismatch,
        True,
        "Correct the body at the place that the text names; `minibroker queue schema` shows what fits.",
    ),
    ErrorRow(QueueInUse, True, "Stop its consumers; purge it first, or delete it with force."),
    ErrorRow(
        ExclusiveQueue, True, "Publish to it, or take a queue of your own: another name, or none."
    ),
    ErrorRow(BadName, True, "Use 1-124 of A-Z a-z 0-9 . _ -; publish to the source of a DLQ."),
    ErrorRow(BadValue, True, "Correct the field that the text names."),
    ErrorRow(TooLarge, True, "Send less, or store the data elsewhere and publish its place."),
    ErrorRow(NotAllowed, True, "Use a token with that right and that queue."),
    ErrorRow(IdConflict, True, "A bug in the client: one sequence, two frames."),
    ErrorRow(
        OutcomeUnknown,
        True,
        "The publish may be stored; publish again if twice is better than never.",
    ),
    ErrorRow(
        LimitReached, True, "Use fewer of what the text names; retry only if the frame says so."
    ),
    ErrorRow(ShuttingDown, True, "Retry; the client library reconnects by itself."),
    ErrorRow(
        NotLeading,
        True,
        "Log in at the address that the frame names, or at another one of the cluster; retry later.",
    ),
    ErrorRow(NotSent, False, "Certainly not stored; publish again."),
    ErrorRow(
        NotWaiting, False, "Ask `explain` where it is; what a worker has can only be cancelled."
    ),
    ErrorRow(
        MessageFailed,
        False,
        "Look at why it died: `minibroker explain`; redrive it or publish again.",
    ),
    ErrorRow(Timeout, False, "Ask again."),
    ErrorRow(ConnectionLost, False, "Check the address and that `minibroker serve` runs."),
    ErrorRow(
        SettingsDiffer,
        False,
        "Declare what the queue has, or change it: `overwrite=True`, `Queue.set`, `minibroker queue set`.",
    ),
    ErrorRow(BodyError, False, "Read message.raw; the message is rejected by process()."),
    ErrorRow(Closed, False, "Open a new connection."),
)

ERRORS: Mapping[str, ErrorRow] = {row.error.code: row for row in _ROWS}
assert len(ERRORS) == len(_ROWS), "every error code needs its own row"


def error_from_wire(code: str, text: str, retry_ms: int | None) -> MinibrokerError:
    """Return the exception for an error frame; an unknown code of a newer server stays readable."""
    row = ERRORS.get(code)
    if row is None:
        return CommandError(f"{code}: {text}", retry_ms=retry_ms)
    return row.error(text, retry_ms=retry_ms)


def again(error: MinibrokerError) -> MinibrokerError:
    """Return an error of the same meaning: each caller raises one of its own."""
    same = type(error)(str(error), retry_ms=error.retry_ms)
    same.retryable = error.retryable
    return same
