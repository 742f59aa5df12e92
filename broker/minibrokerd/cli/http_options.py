"""The flags of `serve` for its HTTP port, checked before anything is started."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from minibrokerd.cli.options import shared_option
from minibrokerd.net.addresses import host_of, is_loopback

DEFAULT: Final = "127.0.0.1:7273"
HTTP_TOKEN_VARIABLE: Final = "MINIBROKER_HTTP_TOKEN"
HTTP_TOKEN_FILE_VARIABLE: Final = "MINIBROKER_HTTP_TOKEN_FILE"  # of --http-token-file
MIN_TOKEN_CHARS: Final = 16  # of one that can be tried over a network
Function = TypeVar("Function", bound=Callable[..., Any])


class HostPort(click.ParamType):  # type: ignore[type-arg]  # it takes none in older releases
    """An address as host:port, an IPv6 one in brackets."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text as it is, if it is one; click.ParamType."""
        host, _, port = str(value).rpartition(":")
        if not host or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
            self.fail(f"{value!r} is no address like {DEFAULT} or [::1]:7273.", param, ctx)
        return value


def http_options(function: Function) -> Function:
    """Add the flags to `serve`; `http_of` makes one value of them."""
    for add in (
        shared_option(
            "--http-allow-host",
            multiple=True,
            help="A name, beside addresses and localhost, that the HTTP port may be called by.",
        ),
        shared_option(
            "--http-token-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="File with the token that whoever changes something over HTTP must have; or give the token in "
            f"{HTTP_TOKEN_VARIABLE}. Without one, HTTP is read-only.",
        ),
        shared_option(
            "--http-tls",
            is_flag=True,
            help="Encrypt the HTTP port, too, with the certificate of --tls-cert: https://.",
        ),
        shared_option("--no-http", is_flag=True, help="Open no HTTP port."),
        shared_option(
            "--http",
            type=HostPort(),
            default=DEFAULT,
            help="Address of the HTTP port: the page, its API, health, /metrics. Port 0: any free one.",
        ),
    ):
        function = add(function)
    return function


def http_of(flags: dict[str, Any], *, insecure: bool, has_tokens: bool) -> Any:
    """Take the flags out of `flags`; return the `HttpOptions` that they mean, None: no HTTP port.

    `has_tokens`: the broker has tokens of its own, of which some are good for HTTP.

    Raises:
        click.UsageError: other machines would reach it without a token, or the token is too short.
    """
    address, off = flags.pop("http"), flags.pop("no_http")
    names, path = flags.pop("http_allow_host"), flags.pop("http_token_file")
    tls = flags.pop("http_tls")
    if off:
        return None
    host, port = host_of(address), address.rpartition(":")[2]
    token = _read(path) if path else os.environ.get(HTTP_TOKEN_VARIABLE, "").strip()
    if token and len(token) < MIN_TOKEN_CHARS:
        raise click.UsageError(f"the token for HTTP has less than {MIN_TOKEN_CHARS} characters")
    if not (token or has_tokens or insecure or is_loopback(host)):
        raise click.UsageError(
            f"refusing to open HTTP on {host} without a token, for whoever reaches it could read every message. "
            f"Make one with `minibroker token add`, give one with --http-token-file or {HTTP_TOKEN_VARIABLE}, "
            "listen on 127.0.0.1, or add --insecure if the network itself keeps strangers out."
        )
    if tls and flags["tls_cert"] is None:
        raise click.UsageError("--http-tls needs a certificate: --tls-cert")
    from minibrokerd.http.options import HttpOptions

    # With `--insecure` alone; it stays closed when the last of the broker's tokens has gone.
    is_open = is_loopback(host) or (insecure and not token)
    return HttpOptions(host, int(port), token, is_open, tuple(names), tls)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise click.UsageError(f"the file of --http-token-file cannot be read: {why}") from None
