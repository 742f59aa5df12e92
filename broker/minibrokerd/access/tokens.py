"""Tokens as text, as hashes, and as rows of a file. Pure: randomness and time come in.

A token is `mbt_ID_SECRET`: 8 hex digits that name it in lists and logs, and 256 random bits. Only SHA-256 of all
of it is kept. Slow, salted hashes are for what people choose: nobody guesses 256 random bits, however fast he can
try, and a login that costs a tenth of a second would be a gift to whoever floods the server with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import msgspec

from minibrokerd.access.rights import PATTERN, Grant, Limits, Right

VERSION: Final = 1
SECRET_BYTES: Final = 32
ID_BYTES: Final = 4
MAX_TOKENS: Final = 10_000
NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOKEN: Final = re.compile(r"mbt_([0-9a-f]{8})_[A-Za-z0-9_-]{43}", re.ASCII)


class BadTokens(Exception):
    """The file of tokens is not what it should be; the text says how."""


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One token as it stands in the file. Times are Unix time in seconds; `expires` 0: never."""

    id: str
    name: str
    hash: str
    queues: list[str]
    may: list[Right]
    created: int
    expires: int = 0
    max_connections: int = 0
    max_queues: int = 0
    max_messages: int = 0
    max_bytes: int = 0
    max_rate: int = 0

    def grant(self) -> Grant:
        """Return what it allows."""
        limits = Limits(
            self.max_connections, self.max_queues, self.max_messages, self.max_bytes, self.max_rate
        )
        return Grant(self.name, self.id, frozenset(self.may), tuple(self.queues), limits)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    tokens: list[Row]


@dataclass(frozen=True, slots=True)
class Made:
    """A new token: its text, which is shown once and kept nowhere, and its row."""

    text: str
    row: Row


def make(random: Callable[[int], bytes], taken: Sequence[Row], **fields: Any) -> Made:
    """Return a new token; `random` returns so many random bytes, `fields` are those of the row."""
    ids = {row.id for row in taken}
    while (id := random(ID_BYTES).hex()) in ids:
        continue
    text = f"mbt_{id}_{_text_of(random(SECRET_BYTES))}"
    return Made(text, Row(id=id, hash=hash_of(text), **fields))


def id_of(text: str) -> str:
    """Return the id of a token; empty: it is none."""
    found = _TOKEN.fullmatch(text)
    return found[1] if found else ""


def hash_of(text: str) -> str:
    """Return what is kept of a token, in hex."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def check_patterns(patterns: Sequence[str]) -> None:
    """Check what is to name queues.

    Raises:
        ValueError: one of them cannot.
    """
    for pattern in patterns:
        if not PATTERN.fullmatch(pattern):
            raise ValueError(f"{pattern!r} is no name of queues: A-Z a-z 0-9 . _ - @ and * for any")
        if pattern.endswith(".dlq"):
            raise ValueError(f"{pattern!r}: a dead-letter queue goes with its source; name that")
    if not patterns:
        raise ValueError("at least one queue, or '*' for all")


def encode(rows: Sequence[Row]) -> bytes:
    """Return the file."""
    return msgspec.json.format(msgspec.json.encode(_File(VERSION, list(rows))), indent=1) + b"\n"


def decode(data: bytes) -> list[Row]:
    """Return the rows of a file.

    Raises:
        BadTokens: it is none.
    """
    try:
        file = msgspec.json.decode(data, type=_File)
        if file.version != VERSION:
            raise BadTokens(f"its version is {file.version}, and this release reads {VERSION}")
        for row in file.tokens:
            check_patterns(row.queues)
            if not (re.fullmatch("[0-9a-f]{64}", row.hash) and re.fullmatch("[0-9a-f]{8}", row.id)):
                raise BadTokens(f"the token {row.name!r:.80} has no hash, or no id")
    except (msgspec.DecodeError, ValueError) as error:
        raise BadTokens(str(error)) from error
    if len({row.id for row in file.tokens}) != len(file.tokens):
        raise BadTokens("two tokens have one id")
    return file.tokens


def _text_of(secret: bytes) -> str:
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(secret).decode().rstrip("=")
