"""Addresses as text: which of them only this machine reaches. Nothing is looked up."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches `host`; of names, only localhost is trusted."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_of(place: str) -> str:
    """Return the host of a place like `a:7272`, `[::1]:7272` or, of all addresses, `:7272`."""
    return place.rpartition(":")[0].removeprefix("[").removesuffix("]")
