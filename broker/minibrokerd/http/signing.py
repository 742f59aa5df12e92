"""Signing in with a browser: the token once, then a cookie; and out again."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs

from starlette.responses import RedirectResponse, Response

from minibrokerd.http.gate import COOKIE_S, Denied, Gate, cookie_name
from minibrokerd.http.requests import Ask, Failure, address_of

MOST_BYTES: Final = 8_192


async def sign_in(ask: Ask) -> Response:
    """Give a cookie to whoever knows the token, and go to the page."""
    data = b""
    async for chunk in ask.request.stream():
        data += chunk
        if len(data) > MOST_BYTES:
            raise Failure(413, "too_large", "that is no token")
    fields = parse_qs(data.decode("utf-8", "replace"))
    gate = _gate(ask)
    try:
        ticket = gate.sign_in(fields.get("token", [""])[0])
    except Denied:
        await gate.make_wait(*address_of(ask.request))
        return RedirectResponse("/sign-in?wrong=1", 303)
    ask.caller = gate.signed_in(ticket) or ask.caller
    ask.changed("sign_in")
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        cookie_name(gate.port(ask.request.url.port)),
        ticket,
        max_age=COOKIE_S,
        httponly=True,
        samesite="strict",
        secure=ask.request.url.scheme == "https",
    )
    return answer


async def sign_out(ask: Ask) -> Response:
    """Forget the cookie."""
    gate = _gate(ask)
    name = cookie_name(gate.port(ask.request.url.port))
    gate.sign_out(ask.request.cookies.get(name, ""))
    answer = RedirectResponse("/", 303)
    answer.delete_cookie(name)
    return answer


def _gate(ask: Ask) -> Gate:
    gate: Gate = ask.request.app.state.gate
    return gate
