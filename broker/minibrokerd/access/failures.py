"""Failed logins, counted by address: how long the answer to one waits. Pure: time comes in.

Only failures wait. A right token is never made to: else whoever can reach the port from an address (behind one
NAT, on one machine) could lock out all others there. And as tokens cannot be guessed, the wait protects no secret:
it keeps a client with a wrong token from being a load, and the log from being all about it.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final

FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 2.0  # below the time that a login may take
FORGOTTEN_S: Final = 60.0
MAX_ADDRESSES: Final = 1_024  # beyond, the one that failed longest ago is forgotten
# Refusals that wait; beyond, they are said at once: connections are worth more.
MAX_WAITING: Final = 64
MAX_WAITING_OF_ONE: Final = 8


class Failures:
    """Counts; tells delays."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._waiting: dict[str, int] = {}

    def count(self, host: str) -> int:
        """Return how often logins from this address, or from its network of IPv6, failed of late."""
        return self._known.get(_key(host), (0, 0.0))[0]

    def note(self, host: str, now_s: float) -> float:
        """Note a failure; return how long its answer waits, in seconds. If it waits, `done` must follow."""
        key = _key(host)
        count, last_s = self._known.pop(key, (0, now_s))
        count = 1 if now_s - last_s > FORGOTTEN_S else count + 1
        self._known[key] = count, now_s
        if len(self._known) > MAX_ADDRESSES:
            self._known.popitem(last=False)
        mine = self._waiting.get(key, 0)
        if mine >= MAX_WAITING_OF_ONE or sum(self._waiting.values()) >= MAX_WAITING:
            return 0.0
        self._waiting[key] = mine + 1
        return float(min(FIRST_DELAY_S * 2 ** min(count - 1, 16), LONGEST_DELAY_S))

    def done(self, host: str) -> None:
        """Note that an answer has waited."""
        key = _key(host)
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]


def _key(host: str) -> str:
    """Return the address; of IPv6 the network, of which one machine may have all addresses."""
    if ":" not in host:
        return host
    try:
        return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False))
    except ValueError:
        return host
