"""What can go wrong with back-ups, beside what can with a log: each says what the operator can still do."""

from __future__ import annotations

from minibrokerd.log.failures import LogError
from minibrokerd.process import exits


class Unsettled(LogError):
    """The log turned over faster than it was copied; the next back-up goes on with what was copied."""

    exit_code = exits.REFUSED

    def __init__(self, source: str, rounds: int) -> None:
        super().__init__(
            f"no whole copy of {source} in {rounds} rounds: segments are freed faster than they are copied; "
            "earlier back-ups stand. Raise --rate, or try again when less passes through"
        )


class ShelfInUse(LogError):
    """Another process writes back-ups to the same place."""

    exit_code = exits.LOCKED

    def __init__(self, path: str) -> None:
        super().__init__(f"another back-up to {path} is under way; wait for its end")


class OtherStore(LogError):
    """The place has back-ups of another data directory: none of them may make room for one of this."""

    exit_code = exits.USAGE

    def __init__(self, path: str, source: str) -> None:
        super().__init__(f"{path} has back-ups of another log than {source}; name another place")


class NoBackup(LogError):
    """There is no back-up of this number, or none at all."""

    exit_code = exits.USAGE

    def __init__(self, path: str, number: int | None) -> None:
        what = "no back-up" if number is None else f"no back-up {number}"
        super().__init__(f"{path} has {what}; `minibroker backup {path} --list` shows what it has")


class BackupDamaged(LogError):
    """A file of a back-up is not as it was written, or is gone."""

    exit_code = exits.DAMAGED

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            f"the back-up is damaged: {path} {what}; take another back-up (--list), and remove this file, "
            "so that the next back-up copies it again"
        )
