"""Where a client looks for its server if nobody says: in the variables that the server goes by, too.

Kubernetes sets `MINIBROKER_PORT=tcp://10.0.0.1:7272`, and a family of others, in each container of a namespace
that has a Service of that name. That is meant for programs that know this old form of service discovery; here the
name means a number, so such a value is passed over, with a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from minibroker.contract import limits

URL_VARIABLE: Final = "MINIBROKER_URL"
HOST_VARIABLE: Final = "MINIBROKER_HOST"
PORT_VARIABLE: Final = "MINIBROKER_PORT"
LOOPBACK: Final = "127.0.0.1"
_EVERY_ADDRESS: Final = {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "::1"}


def default_url(environment: Mapping[str, str]) -> str:
    """Return MINIBROKER_URL, or the address on this machine that `minibroker serve` would listen on here.

    Raises:
        ValueError: MINIBROKER_PORT is no port.
    """
    url = environment.get(URL_VARIABLE)
    if url:
        return url
    text = "" if is_service_link(environment) else environment.get(PORT_VARIABLE, "")
    if text and not (text.isascii() and text.isdecimal() and int(text) <= 65_535):
        raise ValueError(f"{PORT_VARIABLE} is {text!r}, which is no port")
    # Port 0 is "any free one" for the server, which nobody can know.
    return url_of(environment.get(HOST_VARIABLE, LOOPBACK), int(text or 0) or limits.DEFAULT_PORT)


def url_of(host: str, port: int) -> str:
    """Return the url for clients of a server that listens on `host`; on every address: on this machine's own."""
    host = _EVERY_ADDRESS.get(host, host)
    return f"minibroker://[{host}]:{port}" if ":" in host else f"minibroker://{host}:{port}"


def is_service_link(environment: Mapping[str, str]) -> bool:
    """Return whether MINIBROKER_PORT was set by an orchestrator for a service of that name."""
    return "://" in environment.get(PORT_VARIABLE, "")


def passed_over(environment: Mapping[str, str]) -> str:
    """Return the warning about a MINIBROKER_PORT that is not meant for us; empty if there is none."""
    if not is_service_link(environment):
        return ""
    return (
        f"{PORT_VARIABLE}={environment[PORT_VARIABLE]} is passed over: an orchestrator has set it, for a service "
        f"called minibroker; clients of that one need {URL_VARIABLE}, like minibroker://minibroker:7272 "
        "(enableServiceLinks: false ends this warning)"
    )
