"""How the core says no: a frame that is refused, a peer that broke the protocol, a name that no queue may have."""

from __future__ import annotations

import re
from typing import Final

from minibroker.contract import limits

DISK_FULL_RETRY_MS: Final = 1_000
QUEUE_NAME: Final = re.compile(f"[A-Za-z0-9._-]{{1,{limits.MAX_QUEUE_NAME_CHARS}}}")


class Refused(Exception):
    """A frame is refused: nothing was changed, the client gets an error frame with this code."""

    def __init__(
        self, code: str, text: str, retry_ms: int | None = None, *, retryable: bool | None = None
    ) -> None:
        """`retryable`: whether a retry can help, where that is not as the row of the code says."""
        super().__init__(text)
        self.code = code
        self.retry_ms = retry_ms
        self.retryable = retryable


class Broken(Exception):
    """The peer broke the protocol: an error frame, then its connection ends."""


def check_space(*, short: bool) -> None:
    """Check that the log has more room than it keeps for settlements; `short`: it has not.

    Raises:
        Refused: `disk_full`.
    """
    if short:
        text = "the disk is full: what settles messages or ends them is taken, and nothing else that writes"
        raise Refused("disk_full", text, DISK_FULL_RETRY_MS)


def check_new_name(name: str) -> None:
    """Check the name of a queue that is to be made by its use.

    Raises:
        Refused: `bad_name`; `unknown_queue` if the server gave the name once: then the queue has ended.
    """
    check_name(name)
    if name.startswith(limits.GIVEN_NAMES):
        text = f"there is no queue {name!r}; the server gives such names, and what had this one has ended"
        raise Refused("unknown_queue", text)


def check_name(name: str) -> None:
    """Check the name of a queue that is to be made.

    Raises:
        Refused: `bad_name`.
    """
    if name.endswith(limits.DLQ_SUFFIX):
        raise Refused(
            "bad_name",
            f"{name!r:.200} is the name of a dead-letter queue, which comes with its source: make that first",
        )
    if limits.GROUP_MARK in name:
        raise Refused(
            "bad_name",
            f"{name!r:.200} is the name of a group, which is made of its log: `minibroker group set LOG GROUP`",
        )
    if not QUEUE_NAME.fullmatch(name):
        raise Refused(
            "bad_name",
            f"{name!r:.200} is no queue name; use 1 to {limits.MAX_QUEUE_NAME_CHARS} of A-Z a-z 0-9 . _ -",
        )


def no_queue(name: str, *, auto_create: bool) -> Refused:
    """Return the refusal of what names a queue that is not there."""
    comes = "check the spelling; a publish to it or a consumer of it makes it"
    if not auto_create:
        comes = "check the spelling, or make it with `minibroker queue set`"
    if name.endswith(limits.DLQ_SUFFIX):
        comes = "it is there as soon as its source is"
    if limits.GROUP_MARK in name:
        return no_group(name)
    return Refused("unknown_queue", f"there is no queue {name!r:.200}; {comes}")


def was_unused(name: str, ended: tuple[int | bytes, ...], unix_ms: int) -> Refused:
    """Return the refusal of what would make a temporary queue by its use that was there: as it was not."""
    at_unix_ms, messages = map(int, ended)
    text = (
        f"the temporary queue {name!r:.200} ended {max(0, unix_ms - at_unix_ms) // 1_000} s ago with {messages} "
        "messages, as nobody had used it for `delete_unused_ms`; declare it again, and bind it where it was bound"
    )
    return Refused("unknown_queue", text)


def no_group(name: str) -> Refused:
    """Return the refusal of what names a group that is not there: nobody knows where it would start."""
    log, _, group = name.removesuffix(limits.DLQ_SUFFIX).partition(limits.GROUP_MARK)
    text = (
        f"the log {log!r} has no group {group!r}; make it, and say where it starts, "
        f"as with `minibroker group set {log} {group}`"
    )
    return Refused("unknown_queue", text)
