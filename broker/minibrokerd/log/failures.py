"""What can go wrong with a data directory: each class says what the operator can still do.

Every text says what was tried, what happened and what to do next. `exit_code` is the exit code of
the process when the error ends it.
"""

from __future__ import annotations

from typing import ClassVar

from minibrokerd.process import exits


class LogError(Exception):
    """Base of every error of the log; the server ends with `exit_code`."""

    exit_code: ClassVar[int] = exits.LOG_FAILED


class DirectoryLocked(LogError):
    """Another server holds the data directory; `pid` is its process id (0: unknown)."""

    exit_code = exits.LOCKED

    def __init__(self, path: str, pid: int) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(
            f"cannot lock the data directory {path}: {holder} holds it; "
            "stop that server, or start this one on another directory"
        )
        self.path = path
        self.pid = pid


class DirectoryCopied(LogError):
    """The data directory is a copy of one that a server runs on: it would give ids and tokens a second time."""

    exit_code = exits.LOCKED

    def __init__(self, path: str, original: str) -> None:
        super().__init__(
            f"cannot use the data directory {path}: it is a copy of {original}, and a server runs on that; "
            f"stop that server, or run `minibroker log restore --data-dir {path}` to make the copy one of its own"
        )
        self.path = path
        self.original = original


class ReadAgain(LogError):
    """What was read counts no more, as something in between was given up meanwhile: read all of it again."""

    stream: str


class LogMoved(LogError):
    """The log was moved elsewhere: a server that started here would give ids and tokens a second time."""

    exit_code = exits.NOT_WRITABLE

    def __init__(self, name: str, to: str, undo: str = "") -> None:
        super().__init__(
            f"cannot use the log in {name}: it was moved to {to}; start with that one"
            + (f". If no server ever ran on that, you may go back: {undo}" if undo else "")
        )
        self.to = to


class NotWritable(LogError):
    """The data directory cannot be made, read or written, or is not one of ours."""

    exit_code = exits.NOT_WRITABLE

    def __init__(self, path: str, tried: str, reason: str, advice: str) -> None:
        super().__init__(f"cannot {tried} {path}: {reason}; {advice}")
        self.path = path


class NewerFormat(LogError):
    """The log was written by a newer release; nothing was changed."""

    exit_code = exits.NEWER

    def __init__(self, path: str, version: int, known: int) -> None:
        super().__init__(
            f"cannot read {path}: it has log format {version}, this release knows format {known}; "
            "start the newer release, nothing was changed"
        )
        self.path = path
        self.version = version


class DamagedLog(LogError):
    """Bytes that had been synced are not as they were written; the files are left as they are.

    `offset` is the byte in `path` where the first bad batch should start. `first_lost` is its
    number and `last_known` the highest batch number known to have been synced at or after it: the
    batches from one to the other are at risk.
    """

    exit_code = exits.DAMAGED

    def __init__(self, path: str, offset: int, first_lost: int, last_known: int, what: str) -> None:
        at_risk = f"batches {first_lost} to {max(first_lost, last_known)} are at risk"
        super().__init__(
            f"the log is damaged at byte {offset} of {path}: {what} ({at_risk}); "
            "nothing was changed: copy the data directory and check the disk, then see "
            "`minibroker log check`, and restore the file from a copy or use `minibroker log salvage`"
        )
        self.path = path
        self.offset = offset
        self.first_lost = first_lost
        self.last_known = last_known


class Deposed(LogError):
    """Somebody else appends to the log: nothing of ours is in it from here on, and the process must end.

    `expected` is the number of the batch that we appended last, `found` that of the batch the log ends with.
    """

    exit_code = exits.DEPOSED

    def __init__(self, name: str, expected: int, found: int) -> None:
        super().__init__(
            f"cannot append to the log {name}: it ends with batch {found}, where {expected} was expected, so "
            "somebody else leads it; nothing was written, and nothing is confirmed any more: see who does"
        )
        self.expected = expected
        self.found = found


class LogFailed(LogError):
    """A write or sync failed: nothing after `last_synced` is safe, the process must end."""

    exit_code = exits.LOG_FAILED

    def __init__(self, path: str, last_synced: int, reason: BaseException) -> None:
        super().__init__(
            f"cannot write the log in {path}: {reason}; "
            f"batch {last_synced} is the last one that is safe. A failed sync is never retried: "
            "check the disk, then start again"
        )
        self.path = path
        self.last_synced = last_synced
