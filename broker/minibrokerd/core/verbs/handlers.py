"""The table of request handlers, and what several of them read from a frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from minibroker.contract.commands import COMMANDS
from minibroker.contract.wire import RUN
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.state import Broken, Store
from minibrokerd.core.verbs.settling import Run, read_runs

Handler = Callable[[Store, Frame, Any], None]
REQUESTS: Final[dict[str, Handler]] = {}


def handles(op: str) -> Callable[[Handler], Handler]:
    """Make the decorated function the handler of a row of the command table."""

    def enter(handler: Handler) -> Handler:
        assert op in COMMANDS, f"{op} needs a row in the command table"
        REQUESTS[op] = handler
        return handler

    return enter


def read_ids(frame: Frame, part: Any) -> list[Run]:
    """Return the run column of a request that is about single messages, or of all when it has none.

    Raises:
        Broken: the columns do not hold what the part says.
    """
    if len(frame.columns) != part.runs * RUN.size:
        raise Broken(f"{len(frame.columns)} bytes of columns came for {part.runs} runs")
    return read_runs(frame.columns, part.runs) if part.runs else []
