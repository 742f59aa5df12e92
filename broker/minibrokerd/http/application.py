"""The ASGI application: each request passes the gate, then goes to the row of the table that its path names."""

from __future__ import annotations

from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from minibroker.contract.errors import MinibrokerError
from minibrokerd.http.gate import Denied, Gate, cookie_name
from minibrokerd.http.requests import Ask, Failure, address_of, as_json, failure_of
from minibrokerd.http.routes import ROUTES, Row
from minibrokerd.http.subject import Subject

SECURE: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not `no-referrer`: with it, browsers send `Origin: null` with a form of our own.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


def application(subject: Subject, gate: Gate) -> ASGIApp:
    """Return the application for one broker."""
    routes = [
        Route(row.path, _endpoint(row, subject, gate), methods=[row.method]) for row in ROUTES
    ]
    app = Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found})
    app.state.gate = gate
    return _Secured(app)


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
    headers = {"www-authenticate": "Bearer"} if denied.status == 401 else None
    return JSONResponse({"code": denied.code, "text": str(denied)}, denied.status, headers)


async def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return JSONResponse({"code": "no_such_path", "text": "there is nothing at this path"}, status)


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
