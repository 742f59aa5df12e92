"""`Queue.join`: waiting until the work of a queue is done, by looks at its counters that become rarer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from minibroker.contract.errors import Timeout, UnknownQueue
from minibroker.session.joining import Joining
from minibroker.session.spans import Span

Look = Callable[[float | None], dict[str, Any]]


def join(name: str, look: Look, timeout: Span | None, delayed: bool) -> None:
    """Return when nothing is left to wait for; see `Queue.join`.

    `look` returns the counters of the queue `name` within so many seconds (None: the deadline of a call).
    """
    joining = Joining(name, timeout, delayed, time.monotonic())
    while True:
        left_s = joining.left_s(time.monotonic())
        try:
            stats = look(left_s)
        except UnknownQueue:
            return  # nothing was ever published to it
        except Timeout as error:
            if left_s is None:
                raise
            raise joining.late(error) from None
        if joining.is_done(stats):
            return
        time.sleep(joining.pause_s(left_s))
