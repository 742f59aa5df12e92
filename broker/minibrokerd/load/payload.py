"""The bodies of a bench: each says of which bench it is, its number, and when it was meant to be sent.

The time travels in the body, since only the reader of a message can tell how late it is. It is a reading of a
monotonic clock, so it means something in the process that wrote it only.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import Any, Final, Protocol

from minibrokerd.load.plan import Plan

_PREFIX: Final = Struct("<8sQQ")  # which bench, number, due in ns
BODY_TYPES: Final = {"bytes": _PREFIX.size, "json": 96}  # the smallest body size of each
# Of a json body without its filler, as the client packs it; the number varies.
_VALUE_BYTES: Final = 61


class Payload(Protocol):
    """Makes bodies, and reads its own."""

    def make(self, number: int, due_ns: int) -> Any:
        """Return the body of a message."""
        ...

    def read(self, body: Any) -> tuple[int, int] | None:
        """Return number and time of a message; None if it is not of this bench."""
        ...


def payload_of(plan: Plan) -> Payload:
    """Return what makes the bodies that `plan` asks for."""
    return (_Bytes if plan.body_type == "bytes" else _Json)(plan.body_size)


class _Bytes:
    def __init__(self, size: int) -> None:
        self._tag = os.urandom(8)
        self._filler = b"x" * (size - _PREFIX.size)

    def make(self, number: int, due_ns: int) -> bytes:
        return _PREFIX.pack(self._tag, number, due_ns) + self._filler

    def read(self, body: Any) -> tuple[int, int] | None:
        if type(body) is not bytes or len(body) != _PREFIX.size + len(self._filler):
            return None
        tag, number, due_ns = _PREFIX.unpack_from(body)
        return (number, due_ns) if tag == self._tag else None


class _Json:
    def __init__(self, size: int) -> None:
        self._tag = os.urandom(8).hex()
        self._filler = "x" * (size - _VALUE_BYTES)

    def make(self, number: int, due_ns: int) -> dict[str, Any]:
        return {"bench": self._tag, "number": number, "due_ns": due_ns, "filler": self._filler}

    def read(self, body: Any) -> tuple[int, int] | None:
        if type(body) is not dict or body.get("bench") != self._tag:
            return None
        return body["number"], body["due_ns"]
