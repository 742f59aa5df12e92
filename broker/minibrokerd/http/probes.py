"""Health, readiness, metrics, and the overview."""

from __future__ import annotations

from starlette.responses import PlainTextResponse, Response, StreamingResponse

from minibrokerd.http import exposition
from minibrokerd.http.requests import Ask, Failure
from minibrokerd.http.shapes import Overview
from minibrokerd.monitoring.view import Phase


async def alive(ask: Ask) -> Response:
    """Answer while the loop turns."""
    return PlainTextResponse("alive\n")


async def ready(ask: Ask) -> Response:
    """Say whether the broker takes work, and if not, why."""
    subject = ask.subject
    if subject.phase is Phase.READY:
        return PlainTextResponse("ready\n")
    more = f" {subject.log.recovered_percent} %" if subject.phase is Phase.RECOVERING else ""
    if subject.phase is Phase.STANDBY:
        more = f" {subject.active} leads" if subject.active else ""
        if subject.active and subject.replication is not None:
            more += f", {subject.replication().lag_s:.1f} s behind"
    return PlainTextResponse(f"{subject.phase.value}{more}\n", 503)


async def metrics(ask: Ask) -> Response:
    """Answer a scrape."""
    form = exposition.choose(ask.request.headers.get("accept", ""))
    headers = {"content-type": form.content_type, "vary": "Accept"}
    return StreamingResponse(exposition.write(ask.subject, form), headers=headers)


async def overview(ask: Ask) -> Overview:
    """Return the broker in numbers."""
    if ask.subject.survey is None:
        raise Failure(503, "not_ready", "the broker is starting")
    return await ask.subject.survey.overview()
