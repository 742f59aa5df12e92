"""Who asks, from where, and whether he may: the only place of the HTTP port that decides it.

- `Host` must be an address, `localhost`, or a name that `--http-allow-host` gives: a page of another site cannot
  have its own name point here (DNS rebinding) and read.
- A change needs the operator's token, and an `Origin`, where a browser sends one, that is this page's own.
- Looking needs it, too, where other machines reach the port. Health needs nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

from minibrokerd.http.options import HttpOptions


class Need(Enum):
    """What a path needs of whoever asks for it."""

    NOTHING = "nothing"
    READ = "read"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a name for events, and what he may."""

    name: str
    may: frozenset[Need]


class Denied(Exception):
    """The request is not answered: an HTTP status, a code out of the table of the API, and what to do."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


ANYBODY: Final = Caller("anybody", frozenset({Need.NOTHING}))
READER: Final = Caller("reader", ANYBODY.may | {Need.READ})
OPERATOR: Final = Caller("operator", READER.may | {Need.CHANGE})


class Gate:
    """Decides for one HTTP port."""

    def __init__(self, options: HttpOptions) -> None:
        self._names = frozenset(name.lower() for name in (*options.names, "localhost"))
        self._digest = _digest(options.token) if options.token else b""
        self._stranger = READER if options.is_local or not options.token else ANYBODY

    @property
    def can_change(self) -> bool:
        """Whether there is a token at all."""
        return bool(self._digest)

    def caller(self, token: str) -> Caller:
        """Return who has this token; empty: nobody gave one.

        Raises:
            Denied: it is not the right one.
        """
        if not token:
            return self._stranger
        if not self._digest or not hmac.compare_digest(_digest(token), self._digest):
            raise Denied(
                401, "wrong_token", "this is not the token that the broker was started with"
            )
        return OPERATOR

    def check(self, need: Need, method: str, headers: Mapping[str, str], scheme: str) -> Caller:
        """Return who asks, who may do what `need` says; header names are in lower case.

        Raises:
            Denied: he may not, or comes from a page of another site.
        """
        if need is Need.NOTHING:
            return ANYBODY
        self._check_host(headers.get("host", ""))
        if method not in ("GET", "HEAD"):
            _check_origin(headers, scheme)
        caller = self.caller(_bearer(headers.get("authorization", "")))
        if need in caller.may:
            return caller
        if not self._digest:
            raise Denied(
                403,
                "read_only",
                "this broker is read-only over HTTP: start it with --http-token-file or MINIBROKER_HTTP_TOKEN "
                "to change something",
            )
        raise Denied(
            401, "token_needed", "this needs the operator's token: Authorization: Bearer TOKEN"
        )

    def _check_host(self, host: str) -> None:
        name = _host_name(host)
        if name.lower() not in self._names and not _is_address(name):
            raise Denied(
                421,
                "wrong_host",
                f"{name!r:.200} is no name of this broker: ask it by address, or start it with "
                "--http-allow-host NAME",
            )


def _check_origin(headers: Mapping[str, str], scheme: str) -> None:
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none") or (
        origin is not None and origin != f"{scheme}://{headers.get('host', '')}"
    ):
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
