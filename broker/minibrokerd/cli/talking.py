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
from minibroker.broker import parse_url
from minibroker.confirms import MessageId
from minibroker.errors import ERRORS, ConnectionLost, LoginRefused, MinibrokerError, ProtocolError
from minibroker.limits import DLQ_SUFFIX
from minibrokerd import exits
from minibrokerd.cli.printing import fail, leave_closed_pipe

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
    except ConnectionLost as error:
        cause = str(error).partition(";")[0]  # what follows is advice for programs
        fail(
            f"cannot reach a server at {url}: {cause}. Is `minibroker serve` running there? "
            "Give another address with --url or MINIBROKER_URL.",
            exits.UNREACHABLE,
            error.code,
        )
    except (LoginRefused, ProtocolError) as error:
        fail(
            f"what listens at {url} does not talk with this client: {error}. "
            "Check the port, and that both have the same major version.",
            exits.UNREACHABLE,
            error.code,
        )
    except MinibrokerError as error:
        row = ERRORS.get(error.code)  # what the server refuses says itself what to do next
        advice = f" {row.advice}" if row and not row.on_wire else ""
        fail(f"{url} refused: {error} ({error.code}).{advice}", exits.REFUSED, error.code)
    except OSError as error:
        fail(f"cannot read the input, or write the results: {error}", exits.REFUSED)


async def _connected(
    url: str, work: Callable[[minibroker.Broker], Awaitable[None]], wait_s: float
) -> None:
    async with minibroker.connect(url, connect_timeout=wait_s) as broker:
        await work(broker)


def dlq_of(queue: str) -> str:
    """Return the name of the dead-letter queue of `queue`, which may be one already."""
    return queue if queue.endswith(DLQ_SUFFIX) else queue + DLQ_SUFFIX


def message_id(text: str) -> MessageId:
    """Return the id that a person typed; a usage error if it is none."""
    try:
        return MessageId.parse(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is no message id; `peek` and `dlq list` show them, like 1-42"
        ) from error
