"""The table of all paths of the HTTP port: method, path, what it needs, and who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from minibrokerd.http import exposition
from minibrokerd.http.gate import Need
from minibrokerd.http.subject import Phase, Subject

Answer = Callable[[Request, Subject], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Row:
    """One path. Printed as one row of docs/operating.md."""

    method: str
    path: str
    need: Need
    meaning: str
    answer: Answer


async def _alive(request: Request, subject: Subject) -> Response:
    return PlainTextResponse("alive\n")


async def _ready(request: Request, subject: Subject) -> Response:
    phase = subject.phase
    if phase is Phase.READY:
        return PlainTextResponse("ready\n")
    done = f" {subject.log.recovered_percent} %" if phase is Phase.RECOVERING else ""
    return PlainTextResponse(f"{phase.value}{done}\n", 503)


async def _metrics(request: Request, subject: Subject) -> Response:
    form = exposition.choose(request.headers.get("accept", ""))
    headers = {"content-type": form.content_type, "vary": "Accept"}
    return StreamingResponse(exposition.write(subject, form), headers=headers)


ROUTES: Final = (
    Row(
        "GET",
        "/healthz",
        Need.NOTHING,
        "200 while the event loop turns, while it recovers and drains too",
        _alive,
    ),
    Row(
        "GET",
        "/readyz",
        Need.NOTHING,
        "200 when the broker takes work; 503 with a reason while it does not",
        _ready,
    ),
    Row("GET", "/metrics", Need.READ, "all numbers, for Prometheus and OpenMetrics", _metrics),
)
