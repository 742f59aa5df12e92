"""The exit codes of the command line, in one table that `minibroker exits`, docs/operating.md and the tests read.

Those from 64 on are the numbers of sysexits.h where it has a fitting one, so that a supervisor can tell what a
restart may mend from what needs a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Exit:
    """One row: the code, what happened, and what to do about it."""

    code: int
    meaning: str
    advice: str


DONE: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
AGAIN: Final = 3
NOT_YET: Final = 4
DAMAGED: Final = 65
UNREACHABLE: Final = 69
LOG_FAILED: Final = 70
DRAIN: Final = 71
FAULT: Final = 72
NOT_WRITABLE: Final = 73
DEPOSED: Final = 74
LOCKED: Final = 75
NEWER: Final = 76
INTERRUPTED: Final = 130
PIPE: Final = 141

EXITS: Final = (
    Exit(
        DONE, "done; serve, worker: stopped on request, all that was confirmed is kept", "nothing"
    ),
    Exit(
        REFUSED,
        "the server refused the command, or answered too late; backup: the log changed too fast; bridge: a "
        "message fits nowhere; log move: an end is not as it must be",
        "read the message: it names the cause and the next step",
    ),
    Exit(
        USAGE,
        "the command line, or a file or app that it names, is wrong (but of `check`: see below)",
        "see --help",
    ),
    Exit(
        AGAIN,
        "worker: one process reached --max-messages or --max-memory",
        "nothing: its supervisor starts it again",
    ),
    Exit(
        NOT_YET,
        "result: the message waits or runs still",
        "ask again, or let the command wait (--wait)",
    ),
    Exit(
        DAMAGED,
        "serve, log: the log is damaged, and nothing was changed; backup, restore: a back-up is, too",
        "copy the data directory before anything else, then run `minibroker log check`",
    ),
    Exit(
        UNREACHABLE,
        "the server cannot be reached; serve: nothing can listen there, or most servers of NATS are away",
        "check the address and that the server runs, and those of NATS",
    ),
    Exit(
        LOG_FAILED,
        "serve: the log could not be written; what was confirmed is kept",
        "check the disk, then start again",
    ),
    Exit(
        DRAIN,
        "serve, worker, bridge: asked to stop, but did not finish in time, or was asked twice; as after a crash",
        "start again: what was confirmed is kept",
    ),
    Exit(
        FAULT,
        "serve: an error of its own in the middle of a step; worker: its lifespan failed, or a handler ended it",
        "start again; report the event `fault` of serve, mend what `worker_failed` shows",
    ),
    Exit(
        NOT_WRITABLE,
        "serve, log, backup, restore: the directory cannot be made, read or written",
        "check its owner, its rights and the space on its disk",
    ),
    Exit(
        DEPOSED,
        "serve: another broker leads the replicated log; this one confirmed nothing more",
        "start again with --standby: it takes over when that one ends",
    ),
    Exit(
        LOCKED,
        "serve, log: a server holds the data directory, or the one that it is a copy of; backup: DIR is in use",
        "stop that one first, or see `minibroker log restore`",
    ),
    Exit(
        NEWER,
        "serve, log, backup: the data directory was written by a newer version",
        "use that version, or a newer one",
    ),
    Exit(INTERRUPTED, "interrupted from the keyboard", "nothing"),
    Exit(PIPE, "whatever read the output stopped reading it", "nothing; the work was cut short"),
)

# `minibroker check` is called by monitoring systems, to which these four numbers mean something else than above.
CHECK_EXITS: Final = (
    Exit(0, "check: OK, no bound is reached", "nothing"),
    Exit(1, "check: WARNING, a number has reached its bound", "look at what the line names"),
    Exit(
        2,
        "check: CRITICAL, a number has reached its bound, or the broker cannot be reached",
        "look at what the line names, now",
    ),
    Exit(
        3,
        "check: UNKNOWN, it was called with wrong flags, or the broker refused to answer",
        "mend the flags, the name of the queue or the token",
    ),
)
