"""The check of each frame of a connection that came with a token, before the engine sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from minibrokerd.access.quotas import Quota
from minibrokerd.access.rights import Grant, touched, verdict
from minibrokerd.core.core import Core, error_header
from minibrokerd.core.model.effects import Outgoing
from minibrokerd.core.model.inputs import NEEDS_ROOM, Frame
from minibrokerd.engine.engine import Engine

_NONE: Final = (None,)


class Checker:
    """Stands in front of the engine for one connection."""

    def __init__(
        self,
        engine: Engine,
        grant: Grant,
        quota: Quota | None = None,
        now_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._engine = engine
        self._grant = grant
        self._quota = quota
        self._now_s = now_s

    def submit(self, frame: Frame) -> None:
        """Hand a frame to the engine if all of it is allowed; refuse it otherwise, and change nothing.

        One that has no name wants no answer: what it begins was never handed to this connection.
        """
        for part in frame.parts:
            op = part.row.op
            for queue in touched(op, part) or _NONE:
                if not self._grant.allows(op, queue):
                    text = verdict(self._grant, op, touched(op, part))
                    self._refuse(frame, "not_allowed", text, None)
                    return
        if self._quota is None or self._is_within(frame, self._quota, self._engine.core):
            self._engine.submit(frame)

    def _is_within(self, frame: Frame, quota: Quota, core: Core) -> bool:
        named = {getattr(part, part.row.makes) for part in frame.parts if part.row.makes} - {""}
        unnamed = sum(
            part.row.gives_names and not getattr(part, part.row.makes) for part in frame.parts
        )
        asks = named or unnamed or frame.needs == NEEDS_ROOM  # what is routed names no queue
        if not asks or core.knows(frame):  # one that came again was counted
            return True
        made = len(named - core.store.queues.keys()) + unnamed
        if made and (text := quota.may_make(made)):
            self._refuse(frame, "limit_reached", text, None)
            return False
        if frame.needs == NEEDS_ROOM:
            count = sum(part.count for part in frame.parts if part.row.needs == NEEDS_ROOM)
            text, retry_ms = quota.may_publish(count, frame.size, self._now_s())
            if text:
                self._refuse(frame, "busy", f"{text}; nothing was stored", retry_ms)
                return False
        return True

    def _refuse(self, frame: Frame, code: str, text: str, retry_ms: int | None) -> None:
        if frame.sequence is None and frame.request is None:
            return
        header: dict[str, Any] = error_header(code, text, retry_ms, frame)
        self._engine.answer(Outgoing(frame.connection, 0, header))
