"""The page for people: templates filled with what the API answers. What a message or a client says is text there.

A page is whole when it comes; scripts then keep its numbers up to date, and do its actions through the API. Its
content security policy allows no script and no style but our own files.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from minibroker.contract.limits import DLQ_SUFFIX, MAX_KEY_WEIGHT
from minibroker.contract.reasons import ENDED
from minibroker.contract.settings import SETTINGS
from minibrokerd import __version__
from minibrokerd.http import (
    deadletters,
    exchanging,
    explaining,
    keying,
    log_groups,
    messages,
    probes,
    queues,
    resting,
    rules,
    sessions,
    timetable,
)
from minibrokerd.http.gate import Need, cookie_name, csrf_of
from minibrokerd.http.requests import Ask, Failure
from minibrokerd.text.counts import count_text
from minibrokerd.text.units import duration_text

HERE: Final = Path(__file__).parent
KINDS: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
NAVIGATION: Final = (
    ("/", "Queues"),
    ("/exchanges", "Exchanges"),
    ("/schedules", "Schedules"),
    ("/policies", "Policies"),
    ("/clients", "Clients"),
    ("/log", "Log"),
    ("/events", "Events"),
)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "count": _count,
        "counted": count_text,
        "span": _span,
        "size": _size,
        "when": _when,
        "json": _json,
    }
    return made


def _count(number: int) -> str:
    return f"{number:,}"


def _span(ms: float) -> str:
    """Return a duration for people: the largest two units; below 0: there is none."""
    if ms < 0:
        return "\N{EN DASH}"
    if ms < 1_000:
        return f"{ms:.3g} ms" if ms else "0"
    return " ".join(duration_text(int(ms) // 1_000 * 1_000).split()[:2])


def _size(number: int) -> str:
    unit = 1
    for name in ("B", "KiB", "MiB", "GiB"):
        if number < 1_024 * unit:
            return f"{number / unit:.3g} {name}" if unit > 1 else f"{number} B"
        unit *= 1_024
    return f"{number / unit:.3g} TiB"


def _when(unix_ms: int) -> str:
    if not unix_ms:
        return "never"
    return datetime.fromtimestamp(unix_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _page(ask: Ask, template: str, status: int = 200, **values: Any) -> Response:
    gate = ask.request.app.state.gate
    ticket = ask.request.cookies.get(cookie_name(gate.port(ask.request.url.port)), "")
    signed_in = gate.is_signed_in(ticket)
    text = (
        _templates()
        .get_template(template)
        .render(
            version=__version__,
            navigation=NAVIGATION,
            path=ask.request.url.path,
            csrf=csrf_of(ticket) if signed_in else "",
            signed_in=signed_in,
            may_change=Need.CHANGE in ask.caller.may,
            can_change=gate.can_change,
            **values,
        )
    )
    headers = {"content-security-policy": POLICY, "content-type": "text/html; charset=utf-8"}
    return Response(text, status, headers)


async def _or_failure(ask: Ask, template: str, values: Any) -> Response:
    try:
        return _page(ask, template, **await values)
    except Failure as failure:
        return _page(ask, "failure.html", failure.status, failure=failure)


async def show_queues(ask: Ask) -> Response:
    """The list of queues, which is where one begins."""

    async def values() -> dict[str, Any]:
        found = await queues.list_queues(ask)
        store = ask.subject.store
        dead = {row.name: _waiting(store.queues.get(row.name + DLQ_SUFFIX)) for row in found.queues}
        query = {name: ask.text(name) for name in ("match", "sort", "dlqs")}
        return {
            "overview": await probes.overview(ask),
            "found": found,
            "dead": dead,
            "query": query,
            "sorts": (
                "name",
                "oldest",
                "ready",
                "delayed",
                "begun",
                "published",
                "failed",
                "dead_lettered",
            ),
        }

    return await _or_failure(ask, "queues.html", values())


def _waiting(queue: Any) -> int:
    return 0 if queue is None else queue.count()


async def show_queue(ask: Ask) -> Response:
    """One queue with the messages in it."""

    async def values() -> dict[str, Any]:
        view = await queues.show_queue(ask)
        times = await queues.show_times(ask)
        return {
            "queue": view,
            "times": times,
            "times_p95": {name: _p95_ms(times[name]) for name in ("waits", "runs")},
            "groups": [
                {"name": each["group"], "count": each["runs"]["count"]}
                | {name: _p95_ms(each[name]) for name in ("waits", "runs")}
                for each in times["groups"]
            ],
            "found": await messages.list_messages(ask),
            "state": ask.text("state"),
            "states": ("ready", "delayed", "held", "begun"),
            "meanings": SETTINGS,
            "most_weight": MAX_KEY_WEIGHT,
            "source": queues.source_of(view.name),
            "dead": _waiting(ask.subject.store.queues.get(view.dlq)) if view.dlq else 0,
            "pause": await resting.pause_of(ask),
            "keys": (await keying.list_keys(ask)).keys,
            "newest": await log_groups.newest_of(ask, view.offsets) if view.offsets else [],
            "readers": (await log_groups.list_groups(ask)).groups if view.offsets else [],
        }

    return await _or_failure(ask, "queue.html", values())


def _p95_ms(spread: dict[str, Any]) -> float:
    return spread["p95"] * 1_000 if spread["count"] else -1


async def show_schedules(ask: Ask) -> Response:
    """All schedules."""

    async def values() -> dict[str, Any]:
        return {"found": await timetable.list_schedules(ask)}

    return await _or_failure(ask, "schedules.html", values())


async def show_exchanges(ask: Ask) -> Response:
    """Exchanges by their names, a page at a time."""

    async def values() -> dict[str, Any]:
        return {"found": await exchanging.list_exchanges(ask)}

    return await _or_failure(ask, "exchanges.html", values())


async def show_exchange(ask: Ask) -> Response:
    """One exchange with its first bindings."""

    async def values() -> dict[str, Any]:
        return {"found": await exchanging.show_exchange(ask)}

    return await _or_failure(ask, "exchange.html", values())


async def show_policies(ask: Ask) -> Response:
    """All policies and limits."""

    async def values() -> dict[str, Any]:
        return {"found": await rules.list_policies(ask)}

    return await _or_failure(ask, "policies.html", values())


async def show_message(ask: Ask) -> Response:
    """One message with its history."""

    async def values() -> dict[str, Any]:
        ask.queue()  # 404 if there is none
        why = await explaining.explain_message(ask)
        if why.state == ENDED:
            raise Failure(404, "unknown_message", why.text)
        view = await messages.show_message(ask)
        name = ask.queue_name
        source = queues.source_of(name)
        return {
            "name": name,
            "message": view,
            "source": source,
            "is_dlq": name != source,
            "why": why,
        }

    return await _or_failure(ask, "message.html", values())


async def show_errors(ask: Ask) -> Response:
    """Dead messages by what they died of."""

    async def values() -> dict[str, Any]:
        name = ask.queue_name
        return {
            "name": name,
            "source": queues.source_of(name),
            "found": await deadletters.list_errors(ask),
            "redrive": (await deadletters.show_redrive(ask)).redrive,
        }

    return await _or_failure(ask, "errors.html", values())


async def show_clients(ask: Ask) -> Response:
    """All clients."""

    async def values() -> dict[str, Any]:
        return {
            "found": await sessions.list_sessions(ask),
            "now_ms": ask.subject.engine.clock.unix_ms(),
        }

    return await _or_failure(ask, "clients.html", values())


async def show_client(ask: Ask) -> Response:
    """One client and what it has."""

    async def values() -> dict[str, Any]:
        return {
            "holding": await sessions.show_session(ask),
            "now_ms": ask.subject.engine.clock.unix_ms(),
        }

    return await _or_failure(ask, "client.html", values())


async def show_log(ask: Ask) -> Response:
    """The log and its disk, memory, and how this start went."""

    async def values() -> dict[str, Any]:
        return {"overview": await probes.overview(ask)}

    return await _or_failure(ask, "log.html", values())


async def show_events(ask: Ask) -> Response:
    """The newest events."""
    recent = ask.subject.recent
    found = recent.since(0)[::-1] if recent is not None else []
    return _page(ask, "events.html", found=found, last=recent.last if recent is not None else 0)


async def show_sign_in(ask: Ask) -> Response:
    """Where the token is given."""
    return _page(ask, "sign_in.html", wrong=bool(ask.text("wrong")))


async def static(ask: Ask) -> Response:
    """A file of the page."""
    name = str(ask.request.path_params["file"])
    found = _files().get(name)
    if found is None:
        raise Failure(404, "no_such_path", "there is no such file")
    kind, data = found
    return Response(
        data, headers={"content-type": f"{kind}; charset=utf-8", "cache-control": "max-age=3600"}
    )


@cache
def _files() -> dict[str, tuple[str, bytes]]:
    """Return all files by name; there are few, and no path of a request reaches the disk."""
    paths = [*(HERE / "static").iterdir(), *(HERE / "static" / "vendor").iterdir()]
    return {
        path.name: (KINDS[path.suffix], path.read_bytes()) for path in paths if path.suffix in KINDS
    }
