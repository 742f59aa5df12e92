"""The two SQLite databases: users, which the signup waits for, and analytics, which it need not.

Each call opens its own connection, so every process and thread may use them; each call blocks and
belongs into a thread. The pauses stand for a database that is further away than a local file.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

_USERS = "CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)"
_SIGNUPS = "CREATE TABLE IF NOT EXISTS signups (user_id INTEGER PRIMARY KEY, counted_at REAL)"


@dataclass(frozen=True, slots=True)
class User:
    """One row of the users table."""

    id: int
    name: str
    email: str


class Users:
    """users.db; `seconds` is how long saving one user takes."""

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        self._path = folder / "users.db"
        self._seconds = seconds

    def create(self) -> None:
        """Make the table, if it is not there."""
        with _open(self._path) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(_USERS)

    def save(self, name: str, email: str) -> User:
        """Store a new user and return it; takes `seconds` in all."""
        with _at_least(self._seconds), _open(self._path) as db:
            row = db.execute("INSERT INTO users (name, email) VALUES (?, ?)", (name, email))
            assert row.lastrowid is not None
            return User(row.lastrowid, name, email)

    def find(self, user_id: int) -> User:
        """Return the user as it is now.

        Raises:
            LookupError: there is no such user.
        """
        with _open(self._path) as db:
            row = db.execute(
                "SELECT id, name, email FROM users WHERE id = ?", (user_id,)
            ).fetchone()
        if row is None:
            raise LookupError(f"no user {user_id}")
        return User(*row)

    def correct_email(self, user_id: int, email: str) -> None:
        """Give the user another address."""
        with _open(self._path) as db:
            db.execute("UPDATE users SET email = ? WHERE id = ?", (email, user_id))


class Analytics:
    """analytics.db; `seconds` is how long counting one signup takes."""

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        self._path = folder / "analytics.db"
        self._seconds = seconds

    def create(self) -> None:
        """Make the table, if it is not there."""
        with _open(self._path) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(_SIGNUPS)

    def count_signup(self, user_id: int) -> None:
        """Count the signup of a user, once: the primary key makes a second delivery harmless."""
        with _at_least(self._seconds), _open(self._path) as db:
            db.execute("INSERT OR IGNORE INTO signups VALUES (?, ?)", (user_id, time.time()))

    def counted(self) -> list[int]:
        """Return the user of every row, in the order of the table."""
        with _open(self._path) as db:
            return [user_id for (user_id,) in db.execute("SELECT user_id FROM signups")]


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    # The connection's own context manager commits or rolls back, but does not close.
    with closing(sqlite3.connect(path, timeout=10)) as db, db:
        yield db


@contextmanager
def _at_least(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    time.sleep(max(0.0, started + seconds - time.monotonic()))
