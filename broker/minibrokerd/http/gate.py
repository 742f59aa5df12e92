"""Who asks, from where, and whether he may: the only place of the HTTP port that decides it.

- `Host` must be an address, `localhost`, or a name that `--http-allow-host` gives: a page of another site cannot
  have its own name point here (DNS rebinding) and read. The application asks that before anything else.
- A change needs the operator's token, and an `Origin`, where a browser sends one, that is this page's own. Of a
  port without TLS that may be the one of https, too: a proxy in front may have it.
- Looking needs it, too, where other machines reach the port. Health needs nothing.
- Where the broker asks its clients for tokens, nobody looks without one either: `access.rights.reach` says what a
  token is good for here, and one that is revoked ends what it had signed in.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

from minibrokerd.access.door import Door
from minibrokerd.access.rights import Grant, reach
from minibrokerd.http.options import HttpOptions
from minibrokerd.process.logs import events


class Need(Enum):
    """What a path needs of whoever asks for it."""

    NOTHING = "nothing"
    READ = "read"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a name for events, and what he may; with a token of the broker, what that allows.

    `ticket` is the cookie of the browser that he is signed in with.
    """

    name: str
    may: frozenset[Need]
    grant: Grant | None = None
    ticket: str = field(default="", repr=False)


class Denied(Exception):
    """The request is not answered: an HTTP status, a code out of the table of the API, and what to do."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


ANYBODY: Final = Caller("anybody", frozenset({Need.NOTHING}))
READER: Final = Caller("reader", ANYBODY.may | {Need.READ})
OPERATOR: Final = Caller("operator", READER.may | {Need.CHANGE})


COOKIE_S: Final = 12 * 3_600  # how long a browser stays signed in
MOST_TICKETS: Final = 100
CSRF_HEADER: Final = "x-minibroker-csrf"


class Gate:
    """Decides for one HTTP port."""

    def __init__(
        self,
        options: HttpOptions,
        now_s: Callable[[], float] = time.monotonic,
        door: Door | None = None,
    ) -> None:
        """`door` has the tokens of the broker's clients."""
        self._now_s = now_s
        self._door = door or Door()
        # Of browsers that are signed in: the end of each, and who it is.
        self._tickets: dict[str, tuple[float, Caller]] = {}
        self._usual_port = options.port
        self._names = frozenset(name.lower() for name in (*options.names, "localhost"))
        self._digest = _digest(options.token) if options.token else b""
        self._is_open = options.is_open

    @property
    def can_change(self) -> bool:
        """Whether there is a token at all: of the port, or of the broker."""
        return bool(self._digest) or not self._door.is_open

    def caller(self, token: str) -> Caller:
        """Return who has this token; empty: nobody gave one.

        Raises:
            Denied: it is not the right one.
        """
        if not token:
            return READER if self._is_open and self._door.is_open else ANYBODY
        if self._digest and hmac.compare_digest(_digest(token), self._digest):
            return OPERATOR
        grant = None if self._door.is_open else self._door.identify(token, time.time())
        if grant is None:
            raise Denied(401, "wrong_token", "this token is not known here")
        looks, changes = reach(grant)
        may = (
            ANYBODY.may | ({Need.READ} if looks else set()) | ({Need.CHANGE} if changes else set())
        )
        return Caller(grant.name, may, grant)

    def still_lets(self, caller: Caller) -> bool:
        """Whether who was let in may go on.

        His token may have been revoked, the broker ask for one by now, or his browser be signed out since.
        """
        if caller.ticket and self.signed_in(caller.ticket) is None:
            return False
        return self._has_token_still(caller)

    def _has_token_still(self, caller: Caller) -> bool:
        if caller.grant is not None:
            return self._door.is_live(caller.grant, time.time())
        return caller is not READER or self._door.is_open

    async def make_wait(self, host: str, peer: str) -> None:
        """Let somebody wait who gave a wrong token, as on the port for clients, where the same failures count."""
        failures = self._door.failures
        delay_s = failures.note(host, time.monotonic())
        count = failures.count(host)
        if not count & (count - 1):  # after 1, 2, 4, ... of them
            events.warning("http_token_refused", peer=peer, failures=count)
        if delay_s:
            try:
                await asyncio.sleep(delay_s)
            finally:
                failures.done(host)

    def port(self, port: int | None) -> int:
        """Return the port that a browser has asked, for the name of its cookie."""
        return port or self._usual_port

    def sign_in(self, token: str) -> str:
        """Return a ticket for the cookie of whoever knows the token.

        Raises:
            Denied: it is not the right one, or there is none.
        """
        caller = self.caller(token)
        if not token or Need.CHANGE not in caller.may:
            raise Denied(401, "wrong_token", "this is no token that may change something")
        now_s = self._now_s()
        for old in [ticket for ticket, (end_s, _) in self._tickets.items() if end_s < now_s]:
            del self._tickets[old]
        while len(self._tickets) >= MOST_TICKETS:
            del self._tickets[next(iter(self._tickets))]
        ticket = secrets.token_urlsafe(32)
        self._tickets[ticket] = now_s + COOKIE_S, caller
        return ticket

    def sign_out(self, ticket: str) -> None:
        """Take a ticket back."""
        self._tickets.pop(ticket, None)

    def is_signed_in(self, ticket: str) -> bool:
        """Whether a ticket is one that was given out here, and not over."""
        return self.signed_in(ticket) is not None

    def signed_in(self, ticket: str) -> Caller | None:
        """Return who has signed in with a ticket; None: it was not given out here, or is over."""
        end_s, caller = self._tickets.get(ticket, (0.0, ANYBODY))
        if end_s <= self._now_s():
            return None
        return caller if self._has_token_still(caller) else None

    def check_host(self, host: str) -> None:
        """Look at the `Host` of a request, whatever it asks for.

        Raises:
            Denied: it is no name of this broker, so a page of another site may have sent it.
        """
        name = _host_name(host)
        if name.lower() not in self._names and not _is_address(name):
            raise Denied(
                421,
                "wrong_host",
                f"{name!r:.200} is no name of this broker: ask it by address, or start it with "
                "--http-allow-host NAME",
            )

    def check(
        self,
        need: Need,
        method: str,
        headers: Mapping[str, str],
        scheme: str,
        ticket: str = "",
    ) -> Caller:
        """Return who asks, who may do what `need` says; header names are in lower case, `ticket` is the cookie.

        Raises:
            Denied: he may not, or his change comes from a page of another site.
        """
        changes = method not in ("GET", "HEAD")
        if need is Need.NOTHING and not changes:
            return ANYBODY
        if changes:
            _check_origin(headers, scheme)
        if need is Need.NOTHING:
            return ANYBODY
        token = _bearer(headers.get("authorization", ""))
        signed_in = None if token else self.signed_in(ticket)
        if signed_in is not None:
            if changes and not hmac.compare_digest(
                headers.get(CSRF_HEADER, "").encode(), csrf_of(ticket).encode()
            ):
                raise Denied(
                    403, "wrong_csrf", "load the page again: this change did not come from it"
                )
            caller = replace(signed_in, ticket=ticket)
        else:
            caller = self.caller(token)
        if need in caller.may:
            return caller
        if caller.grant is not None:
            raise Denied(
                403,
                "not_allowed",
                "over HTTP all queues are shown: that needs a token for '*' that may consume or manage, "
                "and to change something one that may publish and manage",
            )
        if not self.can_change:
            raise Denied(
                403,
                "read_only",
                "this broker is read-only over HTTP: start it with --http-token-file or MINIBROKER_HTTP_TOKEN "
                "to change something",
            )
        raise Denied(
            401, "token_needed", "this needs the operator's token: Authorization: Bearer TOKEN"
        )


def csrf_of(ticket: str) -> str:
    """Return what a page says with each change, beside the cookie that the browser adds by itself."""
    return hashlib.sha256(f"csrf {ticket}".encode()).hexdigest()


def cookie_name(port: int) -> str:
    """Return the name of the cookie of a port: browsers tell hosts apart, not ports."""
    return f"minibroker_{port}"


def _check_origin(headers: Mapping[str, str], scheme: str) -> None:
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    ours = [f"{each}://{headers.get('host', '')}" for each in (scheme, "https")]
    if site not in ("same-origin", "none") or (origin is not None and origin not in ours):
        raise Denied(403, "wrong_origin", "a page of another site asked for this change")


def _bearer(header: str) -> str:
    kind, _, token = header.strip().partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
