"""What can go wrong with a replicated log: each class says what the operator can still do."""

from __future__ import annotations

from minibrokerd.log.failures import Deposed, LogError, ReadAgain
from minibrokerd.process import exits


class StreamUnfit(LogError):
    """The stream, or a server, has settings under which the log would not be safe; nothing was changed."""

    exit_code = exits.USAGE

    def __init__(self, stream: str, faults: list[str]) -> None:
        super().__init__(
            f"cannot keep the log in {stream}: {'; '.join(faults)}. "
            "Change that, or name a stream that is not there yet: it is made with the right settings"
        )
        self.faults = faults


class StreamUnreachable(LogError):
    """No server answers, or none that knows who leads the stream."""

    exit_code = exits.UNREACHABLE

    def __init__(self, stream: str, reason: str, advice: str) -> None:
        super().__init__(f"cannot reach the log in {stream}: {reason}; {advice}")


class LoginRefused(LogError):
    """The servers do not let this broker in, or must not be told who asks; nothing was changed."""

    exit_code = exits.USAGE

    def __init__(self, stream: str, reason: str) -> None:
        super().__init__(f"cannot use the log in {stream}: {reason}")


class NoClient(LogError):
    """The package that speaks with NATS is not installed."""

    exit_code = exits.USAGE

    def __init__(self) -> None:
        super().__init__(
            "a log in NATS JetStream needs the package nats-py: pip install 'minibroker[nats]'"
        )


class DamagedStream(LogError):
    """What stands in the stream is not what was appended; nothing was changed."""

    exit_code = exits.DAMAGED

    def __init__(self, stream: str, sequence: int, what: str) -> None:
        super().__init__(
            f"the log in {stream} is damaged at entry {sequence}: {what}; nothing was changed: "
            "look who else writes to this stream, or purges it"
        )
        self.sequence = sequence


class HalfMoved(LogError):
    """A log was being moved into the stream, and that is not finished."""

    exit_code = exits.DAMAGED

    def __init__(self, stream: str, source: str) -> None:
        super().__init__(
            f"cannot use the log in {stream}: it is a part of {source}, which was being moved to it; begin "
            "`minibroker log move` again, which goes on where it ended"
        )
        self.stream, self.source = stream, source


class Trimmed(ReadAgain):
    """The broker that leads gave up entries while they were read here."""

    exit_code = exits.UNREACHABLE

    def __init__(self, stream: str, sequence: int) -> None:
        super().__init__(
            f"cannot read the log in {stream}: entry {sequence} was trimmed meanwhile, by the broker that leads; "
            "start again"
        )
        self.stream = stream


class BodyGone(ReadAgain):
    """A record of a message says more of one whose bytes the leader gave up meanwhile, and they are not here."""

    exit_code = exits.UNREACHABLE

    def __init__(self, stream: str, sequence: int) -> None:
        super().__init__(
            f"cannot follow the log in {stream}: what stood behind entry {sequence} was trimmed meanwhile, by the "
            "broker that leads, and the spool does not have it; start again"
        )
        self.stream = stream


class AnotherLeads(Deposed):
    """Another broker leads the stream: whatever this one did not confirm yet, it never will.

    `expected` is the last entry of this broker, `found` the one behind it.
    """

    def __init__(self, stream: str, position: int, what: str) -> None:
        LogError.__init__(
            self,
            f"another broker leads the log in {stream}: {what} behind entry {position}, the last one of this one. "
            "Nothing more was confirmed. Start again with --standby, to take over when that one ends; without, it "
            "would depose that one",
        )
        self.expected, self.found = position, position + 1
