"""Rows of the command table: what opens a session, keeps it and ends it."""

from __future__ import annotations

from typing import Final

from minibroker.contract.fields import (
    CLIENT,
    PROTOCOL,
    RUNS,
    SECRET,
    SESSION,
    TOKEN,
    VERSION,
    whole,
)
from minibroker.contract.rows import Answer, Command, Phase

_MAIN = (Phase.OPEN,)
_BOTH = (Phase.OPEN, Phase.ATTACHED)
_LOGIN = (Phase.NEW,)

SESSION_COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "hello",
        _LOGIN,
        Answer.WELCOME,
        (PROTOCOL, CLIENT, TOKEN, VERSION),
        (),
        "Open a new session.",
    ),
    Command(
        "resume",
        _LOGIN,
        Answer.WELCOME,
        (PROTOCOL, SESSION, SECRET, CLIENT, RUNS, TOKEN, VERSION),
        ("run",),
        "Continue a session on a new connection. The runs name the messages that were begun; "
        "what the server can no longer give back is named in the welcome.",
    ),
    Command(
        "attach",
        _LOGIN,
        Answer.WELCOME,
        (PROTOCOL, SESSION, SECRET, TOKEN),
        (),
        "Open the second connection of a session, for heartbeats, renewals and releases.",
    ),
    Command(
        "accept",
        _MAIN,
        Answer.REPLY,
        (
            whole("recalls", 1, "1: the frame `recall`.", default=0),
            whole("through", 1, "1: a `confirm` of several frames.", default=0),
        ),
        (),
        "The client knows these frames, which a server does not send to others.",
        nameless=True,
    ),
    Command(
        "ping",
        _BOTH,
        Answer.PONG,
        (),
        (),
        "A sign of life; answered by pong.",
        repeatable=True,
        nameless=True,
    ),
    Command(
        "goodbye",
        _BOTH,
        Answer.NONE,
        (),
        (),
        "The client leaves on purpose; the session ends.",
        nameless=True,
    ),
    Command(
        "withdraw",
        _MAIN,
        Answer.REPLY,
        (whole("withdrawn", 2**32 - 1, "Request number that nobody waits for any more."),),
        (),
        "The caller of a receive, a consume, a result or a log_read is gone: it ends, and what it was answered "
        "with and has not settled goes back to its place as if it had never been handed out.",
        repeatable=True,
    ),
)
