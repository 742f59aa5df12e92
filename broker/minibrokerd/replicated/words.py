"""What a broker that leads says to those that stand by, several times a second, in a subject that is not stored.

Nothing rests on it: who leads is decided in the stream. It is for manners, and so that whoever stands by can tell
clients where to go.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

MOST_BYTES: Final = 4 * 1024  # of a word that is read


@dataclass(frozen=True, slots=True)
class Word:
    """One of them. `run` is that of the broker, `name` what an operator knows it by.

    `address` is host:port for clients; empty: not known. `is_last`: it has ended in good order, and leads no more.
    `end` is the sequence of the last entry that it appended; 0: it does not say. `beside` is the server on its
    machine; empty: none is, or it does not say.
    """

    run: str = ""
    name: str = ""
    address: str = ""
    is_last: bool = False
    end: int = 0
    beside: str = ""

    def encode(self) -> bytes:
        """Return it as it is said."""
        return json.dumps(asdict(self)).encode()


def decode(said: bytes) -> Word:
    """Return what was said; what is not understood is a word that says no more than that somebody leads."""
    try:
        fields = json.loads(said[:MOST_BYTES])
        run, name, address = (str(fields[key]) for key in ("run", "name", "address"))
        end, beside = fields.get("end", 0), fields.get("beside", "")  # an older broker says neither
        end = end if type(end) is int else 0
        return Word(run, name, address, fields["is_last"] is True, end, str(beside))
    except (ValueError, TypeError, KeyError, AttributeError):
        return Word()
