"""What each broker of a cluster says of itself when an operator asks, in a subject of NATS that is not stored.

Whoever may publish there may write to the stream as well, and so depose whoever leads: what is asked for here
needs no right of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

WHO: Final = b"who"  # everybody answers, by a member
STEP_DOWN: Final = b"step down"  # whoever leads answers, by a consent
LEADS: Final = "leads"
STANDS_BY: Final = "standby"
UNSAID: Final = {"lag_ms": -1}  # by an older broker
MOST_BYTES: Final = 4 * 1024  # of an answer that is read


@dataclass(frozen=True, slots=True)
class Member:
    """One broker. `since_unix_ms` is when it came to its state, and `epoch` that of one that leads, else 0.

    `lag_ms`: how old the state of one that stands by is; -1: it leads, or does not say.
    """

    name: str  # what an operator knows it by: the machine, and the process
    address: str  # host:port for clients
    state: str  # LEADS, or what its readiness says
    epoch: int
    since_unix_ms: int
    version: str
    lag_ms: int = -1

    def encode(self) -> bytes:
        """Return it as an answer."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True, slots=True)
class Consent:
    """The answer to a wish that a broker steps down; `refused` says why it does not."""

    name: str
    refused: str = ""

    def encode(self) -> bytes:
        """Return it as an answer."""
        return json.dumps(asdict(self)).encode()


def members_of(answers: Iterable[bytes]) -> list[Member]:
    """Return those that answered: who leads first, then by name. What is not understood is passed over."""
    found = [member for said in answers if (member := _read(Member, said)) is not None]
    return sorted(found, key=lambda each: (each.state != LEADS, -each.epoch, each.name))


def consent_of(said: bytes) -> Consent | None:
    """Return the answer of whoever leads; None: it is not understood."""
    consent: Consent | None = _read(Consent, said)
    return consent


def _read(kind: Any, said: bytes) -> Any:
    try:
        asked = json.loads(said[:MOST_BYTES])
        asked = UNSAID | asked
        values = {each.name: asked[each.name] for each in fields(kind)}
        types = {"str": str, "int": int}
        if any(type(values[each.name]) is not types[str(each.type)] for each in fields(kind)):
            return None
        return kind(**values)  # a newer broker may say more
    except (ValueError, TypeError, KeyError):
        return None
