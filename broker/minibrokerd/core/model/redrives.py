"""A redrive that goes on by itself: what it is to do, and how it stands, as both are kept over a restart.

There is one for each dead-letter queue, and one entry for each half of it: what changes with each step is small.
One that has ended is remembered for a day.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from minibrokerd.core.model.deaths import Where
from minibrokerd.core.model.kept import REDRIVE
from minibrokerd.core.model.state import Store

REMEMBERED_MS: Final = 86_400_000
CANARY: Final = "canary"  # its first messages are being sent
WATCHING: Final = "watching"  # and watched until each has ended
SENDING: Final = "sending"
DONE: Final = "done"
STOPPED: Final = "stopped"  # by a client, or because a message of its canary died again
RUNNING: Final = (CANARY, WATCHING, SENDING)


class Plan(msgspec.Struct, array_like=True, frozen=True):
    """What a redrive is to do; `token` is its name, and larger than those of all deliveries before it."""

    token: int
    by: str
    started_unix_ms: int
    rate: int  # messages a second; 0: as fast as it goes
    canary: int
    ids: list[tuple[int, int]]  # these; none: by the filter
    cause: str = ""
    error_class: str = ""
    error_text: str = ""
    group: str = ""
    key: str = ""
    origin: int = 0
    from_unix_ms: int = 0
    until_unix_ms: int = 0

    def where(self) -> Where:
        """Return its filter: what it asked for, of what was dead when it began."""
        return Where(
            cause=self.cause,
            error_class=self.error_class,
            error_text=self.error_text,
            group=self.group,
            key=self.key,
            origin=self.origin,
            from_unix_ms=self.from_unix_ms,
            until_unix_ms=self.until_unix_ms,
            below_token=self.token,
        )


class Progress(msgspec.Struct, array_like=True):
    """How a redrive stands. `origin` and `sequence` are where it goes on, `at` is that in the ids of its plan."""

    token: int  # of its plan
    state: str
    why: str = ""
    redriven: int = 0
    origin: int = 0
    sequence: int = 0
    at: int = 0
    canaries: list[tuple[int, int]] = []
    ended_unix_ms: int = 0


def plan_of(store: Store, number: int) -> tuple[Plan, Progress] | None:
    """Return the redrive of the DLQ with this number; None: there is none, or it ended more than a day ago."""
    stands = store.kept.get(store, REDRIVE, (number, 0))
    does = store.kept.get(store, REDRIVE, (number, 1))
    if stands is None or does is None:
        return None
    assert isinstance(stands[0], bytes)
    assert isinstance(does[0], bytes)
    return _plan(does[0]), _progress(stands[0])


def keep_plan(store: Store, number: int, plan: Plan, until_unix_ms: int = 0) -> None:
    """Let what a redrive is to do stand."""
    store.kept.put(store, REDRIVE, (number, 1), (_pack(plan),), until_unix_ms)


def keep_progress(store: Store, number: int, progress: Progress) -> None:
    """Let how a redrive stands be known after a restart."""
    ended = progress.ended_unix_ms
    until_unix_ms = ended + REMEMBERED_MS if ended else 0
    store.kept.put(store, REDRIVE, (number, 0), (_pack(progress),), until_unix_ms)


def forget(store: Store, number: int) -> None:
    """Let nothing of a redrive stand: its queue has ended."""
    for half in (0, 1):
        store.kept.end(store, REDRIVE, (number, half))


def said_of(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Return what a client is told of a redrive."""
    return {
        "state": progress.state,
        "why": progress.why,
        "by": plan.by,
        "started_unix_ms": plan.started_unix_ms,
        "ended_unix_ms": progress.ended_unix_ms,
        "rate": plan.rate,
        "canary": plan.canary,
        "redriven": progress.redriven,
    }


_pack: Final = msgspec.msgpack.Encoder().encode
_plan: Final = msgspec.msgpack.Decoder(Plan).decode
_progress: Final = msgspec.msgpack.Decoder(Progress).decode
