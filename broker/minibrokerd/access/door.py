"""Who may come in, while the server runs: its tokens as they are now, and what failed of late."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final

from minibrokerd.access.failures import Failures
from minibrokerd.access.quotas import Quotas
from minibrokerd.access.rights import Grant
from minibrokerd.access.tokens import Row, hash_of, id_of

NO_HASH: Final = "0" * 64  # compared with where there is no such token: the answer takes as long
UNKNOWN: Final = "this token is not known here: it is wrong, has expired, or was revoked"
MISSING: Final = (
    "this server asks for a token: connect(token=...), MINIBROKER_TOKEN, MINIBROKER_TOKEN_FILE, or as the "
    "password in the url; `minibroker token add` makes one"
)


class Door:
    """The tokens of one server. Without a file of them everybody may come in, as whoever he says he is."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.quotas = Quotas()
        self.is_open = True  # nobody needs a token
        self._rows: dict[str, Row] = {}
        self._grants: dict[str, Grant] = {}

    def set(self, rows: Iterable[Row] | None) -> None:
        """Go by these tokens from now on; None: by none. A grant that stays as it was stays the same object."""
        before, known = self._rows, self._grants
        self.is_open = rows is None
        self._rows = {row.id: row for row in rows or ()}
        self._grants = {
            id: known[id] if before.get(id) == row else row.grant()
            for id, row in self._rows.items()
        }
        self.quotas.forget(row.name for row in self._rows.values())

    def identify(self, token: str, unix_s: float) -> Grant | None:
        """Return what a token allows; None: there is none like it. Takes the same time for any that is none."""
        row = self._rows.get(id_of(token))
        same = hmac.compare_digest(hash_of(token), row.hash if row is not None else NO_HASH)
        if row is None or not same or 0 < row.expires <= unix_s:
            return None
        return self._grants[row.id]

    def is_live(self, grant: Grant | None, unix_s: float) -> bool:
        """Whether a connection with this grant (None: it came without a token) may go on."""
        if grant is None:
            return self.is_open
        row = self._rows.get(grant.id)
        if row is None or self._grants[grant.id] is not grant:
            return self.is_open
        return not 0 < row.expires <= unix_s

    def next_expiry(self, unix_s: float) -> float | None:
        """Return when (Unix time) the next token ends; None: none of them does."""
        return min(
            (row.expires for row in self._rows.values() if row.expires > unix_s), default=None
        )
