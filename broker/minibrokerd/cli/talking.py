"""How commands talk to a server: as any application does, with the client library.

While nobody answers one line says so, and for how long it is tried. Each failure ends in one message that names
the address tried, the cause and the next step, and in an exit code of the table in exits.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Final

import click

import minibroker
from minibroker.contract.errors import (
    ERRORS,
    ConnectionLost,
    LoginRefused,
    MinibrokerError,
    ProtocolError,
    TokenRefused,
)
from minibroker.contract.wire import SPEAKS_HTTP
from minibroker.session.address import masked, parse_url
from minibroker.shell.telling import AGAIN, logger
from minibrokerd.cli.options import timeout_s
from minibrokerd.cli.printing import fail, leave_closed_pipe, note, wants_json
from minibrokerd.process import exits
from minibrokerd.text.units import duration_text

CONNECT_S: Final = 3.0  # somebody waits in front of it
ONLY_HTTP: Final = (
    "That is the port of --http, perhaps; that of clients is 7272, or as `serve --port` says."
)
SILENT_S: Final = 1.0  # nothing at all came back from there: that is said, too


def talk(
    url: str,
    work: Callable[[minibroker.Broker], Awaitable[None]],
    wait_s: float = CONNECT_S,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Connect within `wait_s`, do `work`, leave; end the process with a message and a code if it fails."""
    try:
        parse_url(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_connected(url, work, wait_s))
    except BrokenPipeError:
        leave_closed_pipe()
    except ValueError as error:  # of a file for TLS
        raise click.UsageError(str(error)) from error
    except ConnectionLost as error:
        cause = str(error).partition(";")[0]  # what follows is advice for programs
        advice = ONLY_HTTP if SPEAKS_HTTP in cause else "Is `minibroker serve` running there?"
        fail(
            f"cannot reach a server at {masked(url)}: {cause}. {advice} "
            "Give another address with --url or MINIBROKER_URL.",
            exits.UNREACHABLE,
            error.code,
        )
    except TokenRefused as error:  # the right port, which says what is missing
        fail(f"{masked(url)} refused: {error} ({error.code}).", exits.UNREACHABLE, error.code)
    except (LoginRefused, ProtocolError) as error:
        if (
            isinstance(error, LoginRefused) and not error.ends_session
        ):  # a certificate: it says what to give
            fail(f"{masked(url)}: {error}.", exits.UNREACHABLE, error.code)
        fail(
            f"what listens at {masked(url)} does not talk with this client: {error}. "
            "Check the port, and that both have the same major version.",
            exits.UNREACHABLE,
            error.code,
        )
    except MinibrokerError as error:
        row = ERRORS.get(error.code)  # what the server refuses says itself what to do next
        advice = f" {row.advice}" if row and not row.on_wire else ""
        fail(f"{masked(url)} refused: {error} ({error.code}).{advice}", exits.REFUSED, error.code)
    except OSError as error:
        fail(f"cannot read the input, or write the results: {error}", exits.REFUSED)


async def _connected(
    url: str, work: Callable[[minibroker.Broker], Awaitable[None]], wait_s: float
) -> None:
    timeout = timeout_s()
    connect_s = wait_s if wait_s > CONNECT_S else min(wait_s, timeout)
    connecting = minibroker.connect(url, connect_timeout=connect_s, timeout=timeout)
    async with AsyncExitStack() as stack:
        with _said_to_wait(masked(url), connect_s):
            broker = await stack.enter_async_context(connecting)
        await work(broker)


@contextmanager
def _said_to_wait(where: str, wait_s: float) -> Iterator[None]:
    """Say once, while the block runs, that nobody is there yet; whoever asked for JSON reads of the end alone."""
    if wants_json():
        yield
        return
    attempts = _Attempts(where, wait_s)
    silent = asyncio.get_running_loop().call_later(SILENT_S, attempts.say, "no answer yet")
    level = logger.level
    logger.addHandler(attempts)
    logger.setLevel(logging.INFO)  # the first attempt that fails is one
    try:
        yield
    finally:
        logger.removeHandler(attempts)
        logger.setLevel(level)
        silent.cancel()


class _Attempts(logging.Handler):
    """Hears of attempts to connect that failed; what else is logged is printed as without it."""

    def __init__(self, where: str, wait_s: float) -> None:
        super().__init__()
        self._where, self._wait_s = where, wait_s
        self._is_said = False

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "told", "") == AGAIN["told"]:
            assert isinstance(record.args, tuple)
            self.say(str(record.args[-1]))
        elif record.levelno >= logging.WARNING:
            note(record.getMessage())

    def say(self, cause: str) -> None:
        """Say that it is tried, and why it takes time."""
        if not self._is_said:
            self._is_said = True
            wait = duration_text(round(self._wait_s * 1_000))
            note(f"waiting up to {wait} for {self._where}: {cause}")
