"""Whether a client has TLS; what that takes of imports (ssl: a tenth of a second, cold) is loaded only then."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from minibroker.session.address import Encryption

if TYPE_CHECKING:
    from minibroker.shell.trust import Trust


def trust_of(asked: Encryption | None) -> Trust | None:
    """Return what a client with TLS needs; None: it has none.

    Raises:
        ValueError: a file cannot be read, or does not hold what it should.
    """
    if asked is None:
        return None
    trust: Trust = import_module("minibroker.shell.trust").Trust(asked)
    return trust
