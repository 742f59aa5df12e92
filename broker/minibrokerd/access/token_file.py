"""The file `tokens` in the data directory. `minibroker token` writes it, the server reads it when it has changed.

It is there from the first token on, also when all of them were revoked: with it, nobody logs in without a token.
It is replaced whole, and synced, under a lock of its own, which no server holds; so tokens come and go while one
runs.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from minibrokerd.access.tokens import BadTokens, Row, decode, encode
from minibrokerd.log.fileops import FileOps, sync_entries

NAME: Final = "tokens"
LOCK: Final = "tokens.lock"
FRESH: Final = "tokens.tmp"
MAX_BYTES: Final = 16 * 1024 * 1024
PRIVATE: Final = 0o600

Signature = tuple[int, int, int] | None


def signature(directory: Path) -> Signature:
    """Return what changes with the file; None: there is none."""
    try:
        found = (directory / NAME).stat()
    except FileNotFoundError:
        return None
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


def read(directory: Path) -> list[Row] | None:
    """Return the tokens; None: there is no file, so none are asked for.

    Raises:
        BadTokens: the file is there and cannot be used, or others than its owner may write it.
    """
    try:
        with (directory / NAME).open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise BadTokens("others than its owner may write it: chmod 600")
            if found.st_uid not in (os.geteuid(), 0):
                raise BadTokens("it belongs to another user than the one that the server runs as")
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):  # what is wrong with its path the log says
        return None
    except OSError as error:
        raise BadTokens(error.strerror or str(error)) from error
    if len(data) > MAX_BYTES:
        raise BadTokens(f"it has more than {MAX_BYTES} bytes")
    return decode(data)


@contextmanager
def changing(directory: Path) -> Iterator[list[Row]]:
    """Give out the rows to be changed; they are written when the block ends well. Makes the directory if need be.

    Raises:
        BadTokens, OSError: nothing was changed.
    """
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True)
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        _give(lock, directory)
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = read(directory) or []
        yield rows
        _replace(directory, rows)
    finally:
        os.close(lock)


def _give(file: int, directory: Path) -> None:
    """Let a file that root has made be of whoever has the directory: an administrator does it for the server."""
    owner = directory.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(file, owner.st_uid, owner.st_gid)


def _replace(directory: Path, rows: Sequence[Row]) -> None:
    fresh = directory / FRESH
    fresh.unlink(missing_ok=True)  # of somebody who did not come to its end
    file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    try:
        _give(file, directory)
        with os.fdopen(file, "wb", closefd=False) as out:
            out.write(encode(rows))
            out.flush()
            os.fsync(file)
    finally:
        os.close(file)
    fresh.replace(directory / NAME)
    sync_entries(FileOps(), directory)
