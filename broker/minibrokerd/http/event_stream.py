"""Events as they happen, as server-sent events with ids: whoever comes back says what it saw last.

An id is the run of the broker, which is when it started, and the number of the event in it. `hello` comes first
and says which run this is and which events it still has, so whoever came back knows what it missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from starlette.responses import Response, StreamingResponse

from minibrokerd.http.recent import Recent
from minibrokerd.http.requests import Ask, Failure, encode, whole

BEAT_S: Final = 10.0  # between two signs of life, where nothing happens
CHECK_S: Final = 0.5  # in between: whether the token is still good
MOST_STREAMS: Final = 50
LONGEST_S: Final = 3_600.0  # then whoever follows asks again, and passes the gate again
LAST_ID: Final = "last-event-id"

_open: set[object] = set()  # streams, of all ports of this process


async def follow_events(ask: Ask) -> Response:
    """Return the stream."""
    recent = ask.subject.recent
    if recent is None:
        raise Failure(503, "not_ready", "the broker is starting")
    if len(_open) >= MOST_STREAMS:
        raise Failure(503, "busy", f"{MOST_STREAMS} others follow already")
    run = round(ask.subject.started_unix * 1_000)
    seen_run, _, seen = ask.request.headers.get(LAST_ID, "").partition("-")
    after = ask.number("after", 0, 2**53)
    if seen_run:  # of another run, all of this one is new
        after = (whole(seen) or 0) if seen_run == str(run) else 0
    headers = {"content-type": "text/event-stream", "x-accel-buffering": "no"}
    return StreamingResponse(_follow(ask, recent, run, after), headers=headers)


async def _follow(ask: Ask, recent: Recent, run: int, after: int) -> AsyncIterator[bytes]:
    loop, mark, gate = ask.subject.loop, object(), ask.request.app.state.gate
    _open.add(mark)
    try:
        hello = {"run": run, "first": recent.first, "last": recent.last}
        yield b"event: hello\ndata: " + encode(hello) + b"\n\n"
        end_s = loop.time() + LONGEST_S
        beat_s = loop.time() + BEAT_S
        while loop.time() < end_s and gate.still_lets(ask.caller):
            for event in recent.since(after):
                head = f"id: {run}-{event.number}\nevent: event\ndata: ".encode()
                yield head + encode(event) + b"\n\n"
                after, beat_s = event.number, loop.time() + BEAT_S
            if loop.time() >= beat_s:
                beat_s = loop.time() + BEAT_S
                yield b":\n\n"
            if recent.last <= after:
                await _wait(recent, min(CHECK_S, max(beat_s - loop.time(), 0)))
    finally:
        _open.discard(mark)


async def _wait(recent: Recent, seconds: float) -> None:
    """Return when there is a new event, or after a while."""
    try:
        async with asyncio.timeout(seconds):
            await recent.news()
    except TimeoutError:
        return
