"""With what a client comes to a server: its token, and whom it trusts."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from minibroker.session.address import Encryption
from minibroker.session.arguments import MAX_TOKEN_CHARS, TOKEN_FILE_VARIABLE, Options

if TYPE_CHECKING:
    from minibroker.shell.trust import Trust


def trust_of(asked: Encryption | None) -> Trust | None:
    """Return what a client with TLS needs; None: it has none.

    What that takes of imports (ssl: a tenth of a second, cold) is loaded only then.

    Raises:
        ValueError: a file cannot be read, or does not hold what it should.
    """
    if asked is None:
        return None
    trust: Trust = import_module("minibroker.shell.trust").Trust(asked)
    return trust


def token_of(options: Options) -> str:
    """Return the token for the next login; the file is read each time, for tokens are replaced while clients run.

    Raises:
        ConnectionError: it cannot be read, or holds something else.
    """
    if options.token or not options.token_file:
        return options.token
    try:
        token = Path(options.token_file).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConnectionError(f"{TOKEN_FILE_VARIABLE}={options.token_file}: {error}") from error
    if not token or len(token) > MAX_TOKEN_CHARS:
        raise ConnectionError(f"{TOKEN_FILE_VARIABLE}={options.token_file}: it holds no token")
    return token
