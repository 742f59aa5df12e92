"""The ASGI application: each request passes the gate, then goes to the row of the table that its path names.

Nothing but the probes of health is answered under a foreign `Host`: not even with a redirect.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from minibroker.contract.errors import MinibrokerError
from minibrokerd.http.gate import Denied, Gate, Need, cookie_name
from minibrokerd.http.requests import Ask, Failure, address_of, as_json, failure_of
from minibrokerd.http.routes import OPEN, ROUTES, Row
from minibrokerd.http.subject import Subject

SECURE: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not `no-referrer`: with it, browsers send `Origin: null` with a form of our own.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
# Asked by an orchestrator, by whatever name it has for this place; they say nothing about anybody.
PROBES: Final = frozenset(row.path for row in OPEN if row.need is Need.NOTHING)


def application(subject: Subject, gate: Gate) -> ASGIApp:
    """Return the application for one broker."""
    routes = [
        Route(row.path, _endpoint(row, subject, gate), methods=[row.method]) for row in ROUTES
    ]
    app = Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found})
    app.router.redirect_slashes = False  # a path is one of the table, or none
    app.state.gate = gate
    return _Secured(_Named(app, gate))


def _endpoint(row: Row, subject: Subject, gate: Gate) -> Any:
    async def endpoint(request: Request) -> Response:
        ticket = request.cookies.get(cookie_name(gate.port(request.url.port)), "")
        try:
            caller = gate.check(
                row.need, request.method, request.headers, request.url.scheme, ticket
            )
        except Denied as denied:
            if denied.code == "wrong_token":
                await gate.make_wait(*address_of(request))
            return _denied(denied, row)
        try:
            answer = await row.answer(Ask(request, subject, caller))
        except MinibrokerError as error:
            return failure_of(error).answer()
        except Failure as failure:
            return failure.answer()
        except ClientDisconnect:  # in the middle of its body; nobody reads this
            return Response(status_code=400)
        return answer if isinstance(answer, Response) else as_json(answer)

    return endpoint


def _denied(denied: Denied, row: Row) -> Response:
    if denied.code == "token_needed" and row.is_page:
        return RedirectResponse("/sign-in", 303)
    return _refusal(denied)


def _refusal(denied: Denied) -> Response:
    headers = {"www-authenticate": "Bearer"} if denied.status == 401 else None
    return JSONResponse({"code": denied.code, "text": str(denied)}, denied.status, headers)


async def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return JSONResponse({"code": "no_such_path", "text": "there is nothing at this path"}, status)


class _Named:
    """Refuses what is asked under a name that is not the broker's."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._app
        if scope["path"] not in PROBES or scope["method"] not in ("GET", "HEAD"):
            try:
                self._gate.check_host(Headers(scope=scope).get("host", ""))
            except Denied as denied:
                answer = _refusal(denied)
        await answer(scope, receive, send)


class _Secured:
    """Adds to every answer what a browser should know of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def secured(message: Any) -> None:
            if message["type"] == "http.response.start":
                have = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(each for each in SECURE if each[0] not in have),
                ]
            await send(message)

        await self._app(scope, receive, secured)
