"""Queues that a command makes because it names them: it says so, or makes none where it was asked not to.

To publish to a queue that is not there makes it, and so does all else that is about to use one. A slip of the pen
makes one, too. So the commands that do it have `--no-create`, and say on standard error what they have made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

import minibroker
from minibroker.contract.errors import BadName, NotAllowed, UnknownQueue
from minibroker.contract.limits import DLQ_SUFFIX
from minibrokerd.cli.nearest import nearest
from minibrokerd.cli.options import keep_as, shared_option
from minibrokerd.cli.printing import fail, note
from minibrokerd.process import exits

NO_CREATE: Final = "minibroker.no_create"  # in the context of a command
Function = TypeVar("Function", bound=Callable[..., Any])


def create_option(function: Function) -> Function:
    """Add `--no-create` to a command that makes queues; `Made.look` goes by it."""
    return shared_option(
        "--no-create",
        is_flag=True,
        expose_value=False,
        callback=keep_as(NO_CREATE),
        help="Refuse a queue that is not there, which would be made.",
    )(function)


class Made:
    """The queue that a command is about to make, if it is not there; `tell` says so when it has."""

    def __init__(self, name: str = "") -> None:
        self._name = name  # empty: there is nothing to tell

    @classmethod
    async def look(cls, broker: minibroker.Broker, name: str) -> Made:
        """Look whether the queue is there; with `--no-create` one that is not ends the command."""
        if await _is_there(broker, name):
            return cls()
        if click.get_current_context().meta[NO_CREATE]:
            meant = nearest(name, (await broker.stats())["queues"])
            hint = f"; did you mean {meant!r}?" if meant else ""
            fail(
                f"there is no queue {name!r}, and --no-create says to make none{hint}",
                exits.REFUSED,
                UnknownQueue.code,
            )
        return cls(name)

    def tell(self) -> None:
        """Say once that the queue was made."""
        if self._name:
            source = self._name.removesuffix(DLQ_SUFFIX)
            note(f"made the queue {source}" + (", with its DLQ" if source != self._name else ""))
            self._name = ""


async def _is_there(broker: minibroker.Broker, name: str) -> bool:
    """Return whether a queue is there; also if it cannot be, or not be asked for: the command will say that."""
    try:
        await broker.queue(name).settings()
    except UnknownQueue:
        return False
    except (BadName, NotAllowed):
        return True
    return True
