"""How commands talk to a server: as any application does, with the client library.

Each failure ends in one message that names the address tried, the cause and the next step, and in an exit code of
the table in exits.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
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
from minibroker.session.address import masked, parse_url
from minibrokerd.cli.options import timeout_s
from minibrokerd.cli.printing import fail, leave_closed_pipe
from minibrokerd.process import exits

CONNECT_S: Final = 3.0  # somebody waits in front of it


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
        fail(
            f"cannot reach a server at {masked(url)}: {cause}. Is `minibroker serve` running there? "
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
    async with minibroker.connect(url, connect_timeout=connect_s, timeout=timeout) as broker:
        await work(broker)
