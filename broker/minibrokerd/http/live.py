"""Server-sent events: what a page shows, every two seconds, for as long as it is open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.responses import Response, StreamingResponse

from minibrokerd.http.requests import Ask, Failure, encode
from minibrokerd.http.survey import row_of

EVERY_S: Final = 2.0
CHECKS: Final = 8  # in between: whether the token is still good
MOST_STREAMS: Final = 50
MOST_QUEUES: Final = 200
LONGEST: Final = 1_800  # looks; then the page asks again, and passes the gate again

_open: set[object] = set()  # streams, of all ports of this process


async def stream(ask: Ask) -> Response:
    """Return the stream."""
    if len(_open) >= MOST_STREAMS:
        raise Failure(503, "busy", f"{MOST_STREAMS} pages are open already")
    names = [name for name in ask.text("queues").split(",") if name][:MOST_QUEUES]
    after = ask.number("after", 0, 2**53)
    headers = {"content-type": "text/event-stream", "x-accel-buffering": "no"}
    return StreamingResponse(_looks(ask, names, after), headers=headers)


async def _looks(ask: Ask, names: list[str], after: int) -> AsyncIterator[bytes]:
    subject, mark, gate = ask.subject, object(), ask.request.app.state.gate
    _open.add(mark)
    try:
        for _ in range(LONGEST):
            value: dict[str, Any] = {"phase": subject.phase.value}
            if subject.survey is not None:
                value["overview"] = await subject.survey.overview()
            if subject.is_open:
                known = (subject.store.queues.get(name) for name in names)
                value["queues"] = [row_of(subject, queue) for queue in known if queue is not None]
            if subject.recent is not None:
                value["events"] = subject.recent.since(after)
                after = subject.recent.last
            yield b"event: look\ndata: " + encode(value) + b"\n\n"
            for _ in range(CHECKS):
                await asyncio.sleep(EVERY_S / CHECKS)
                if not gate.still_lets(ask.caller):
                    return
    finally:
        _open.discard(mark)
