"""The check of each frame of a connection that came with a token, before the engine sees it."""

from __future__ import annotations

from typing import Any, Final

from minibrokerd.access.rights import Grant, touched, verdict
from minibrokerd.core.core import error_header
from minibrokerd.core.effects import Outgoing
from minibrokerd.core.inputs import Frame
from minibrokerd.engine import Engine

_NONE: Final = (None,)


class Checker:
    """Stands in front of the engine for one connection."""

    def __init__(self, engine: Engine, grant: Grant) -> None:
        self._engine = engine
        self._grant = grant

    def submit(self, frame: Frame) -> None:
        """Hand a frame to the engine if all of it is allowed; refuse it otherwise, and change nothing.

        One that has no name wants no answer: what it begins was never handed to this connection.
        """
        for part in frame.parts:
            for queue in touched(part.op, part) or _NONE:
                if not self._grant.allows(part.op, queue):
                    self._refuse(frame, part)
                    return
        self._engine.submit(frame)

    def _refuse(self, frame: Frame, part: Any) -> None:
        if frame.sequence is None and frame.request is None:
            return
        text = verdict(self._grant, part.op, touched(part.op, part))
        header = error_header("not_allowed", text, None, frame)
        self._engine.answer(Outgoing(frame.connection, 0, header))
