"""What a broker whose log is in a stream tells operators, and how it hands over when one asks for that."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Final

from minibrokerd import __version__
from minibrokerd.monitoring.view import Phase, View
from minibrokerd.serving.configuration import ServeOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from minibrokerd.replicated.members import Member

NO_STANDBY: Final = (
    "it was started without --standby, so its supervisor would have it depose the next one; "
    "stop it instead"
)


def answer_operators(
    options: ServeOptions, view: View, address: str, step_down: Callable[[], object]
) -> asyncio.Task[None] | None:
    """Answer from now on, until the task is cancelled; None: the log is in no stream, and nobody asks this way.

    `address` is where clients find this broker. `step_down` has it stop, so that another one leads.
    """
    if options.log is None:
        return None
    from minibrokerd.replicated.answering import Answering

    def asked() -> str:
        if not options.standby:
            return NO_STANDBY
        view.loop.call_soon(step_down)  # behind the answer
        return ""

    answering = Answering(options.log, lambda: member_of(view, address), asked)
    return view.loop.create_task(answering.run())


def member_of(view: View, address: str) -> Member:
    """Return what a broker says of itself."""
    from minibrokerd.replicated.members import LEADS, Member

    leads = view.phase is Phase.READY
    lag_ms = -1
    if view.phase is Phase.STANDBY and view.replication is not None:
        lag_ms = round(view.replication().lag_s * 1_000)
    since_s = view.ready_unix if leads else view.started_unix
    return Member(
        f"{socket.gethostname()}, process {os.getpid()}",
        address,
        LEADS if leads else view.phase.value,
        view.log.epoch if leads else 0,
        round(since_s * 1_000),
        __version__,
        lag_ms,
    )
