"""Who asks the servers of NATS, over what, and what of it they refuse.

Files are read when a connection is made, and again when one is lost, so that what was renewed is used. What stands
in them is in no text. A server that refuses a login, or whose certificate nobody trusts, will do so again: a start
ends with it. A broker that leads goes on trying, for somebody may mend it, and says what is wrong.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from minibrokerd.replicated.stream_address import StreamAddress

# What JetStream is asked for, by the verb of its subject: the stream comes behind.
VERBS: Final = (
    "STREAM.INFO",
    "STREAM.CREATE",  # where this broker is to make the stream
    "STREAM.PURGE",
    "STREAM.LEADER.STEPDOWN",
    "DIRECT.GET",
)
DENIED: Final = "permissions violation"  # in small letters: nats-py writes all errors so
WRONG_LOGIN: Final = "authorization violation"
LOGIN_ADVICE: Final = (
    "see the user and password, token, creds or nkey of --log, and who the servers of NATS know"
)
TRUST_ADVICE: Final = (
    "name its CA as ?ca=FILE, and the servers by names that their certificates are for"
)
CREDS: Final = re.compile(
    r"-BEGIN NATS USER JWT-+\n\S+\n.*-BEGIN USER NKEY SEED-+\n(\S+)\n", re.DOTALL
)
KINDS: Final = {"creds": "JWT and seed, as `nsc generate creds` writes them", "nkey": "seed"}
PLAIN: Final = "it does not encrypt, and tls was asked for: nothing was said to it"


class LoginUnusable(Exception):
    """A file that the address names cannot be used; `str()` says which, and nothing that stands in it."""


def publishes(address: StreamAddress) -> tuple[str, ...]:
    """Return the subjects that a broker publishes to, all that it needs."""
    asked = tuple(f"$JS.API.{verb}.{address.stream}" for verb in VERBS)
    own = (
        address.record_subject,
        address.epoch_subject,
        address.alive_subject,
        address.asked_subject,
    )
    return (*asked, *own, f"{address.inbox}.>")  # to an inbox: what `minibroker cluster` asked


def subscribes(address: StreamAddress) -> tuple[str, ...]:
    """Return the subjects that a broker subscribes to, all that it needs."""
    return (f"{address.inbox}.>", address.alive_subject, address.asked_subject)


def denied_subject(text: str, address: StreamAddress) -> str:
    """Return the subject that a server says may not be used; empty: `text` says no such thing."""
    if DENIED not in text.lower():
        return ""
    for way, subjects in (("publish", publishes(address)), ("subscribe", subscribes(address))):
        for subject in subjects:
            is_meant = f'"{subject.rstrip(">").lower()}' in text.lower()
            if is_meant and f"for {way}" in text.lower().replace("subscription", "subscribe"):
                return f"{way} to {subject}"
    return text


def refusal(text: str) -> str:
    """Return what is wrong for good with a connection, and what to do about it; empty: it may be made later."""
    lower = text.lower()
    if WRONG_LOGIN in lower:
        return f"the server refuses who asks ({text.removeprefix('nats: ')}); {LOGIN_ADVICE}"
    if "certificate verify failed" in lower:
        return f"the certificate of the server is not trusted ({text}); {TRUST_ADVICE}"
    if "certificate required" in lower or "bad certificate" in lower or "unknown ca" in lower:
        return f"the server does not take our certificate ({text}); see ?cert=FILE and its CAs"
    return text if PLAIN in text else ""


def tls_of(address: StreamAddress) -> ssl.SSLContext:
    """Return what TLS goes by; LoginUnusable."""
    files = address.files
    try:
        context = ssl.create_default_context(cafile=files.get("ca"))
    except (OSError, ssl.SSLError) as error:
        raise LoginUnusable(f"ca={files.get('ca')}: {_what(error)}") from error
    if "cert" in files:
        try:
            # An empty password: OpenSSL would ask the terminal for that of a key that has one.
            context.load_cert_chain(files["cert"], files.get("key"), password="")
        except (OSError, ssl.SSLError) as error:
            name = "cert" if "key" not in files else "cert and key"
            raise LoginUnusable(f"{name} ({files['cert']}): {_what(error)}") from error
    return context


def login_of(address: StreamAddress) -> Mapping[str, Any]:
    """Return what `Client.connect` is told of who asks; LoginUnusable."""
    files = address.files
    if address.user:
        return {
            "user": address.user,
            "password": _read(files, "password_file") or str(address.password),
        }
    token = _read(files, "token_file") or str(address.token)
    if token:
        return {"token": token}
    for name, option, seed_of in (
        ("creds", "user_credentials", _seed_of_creds),
        ("nkey", "nkeys_seed", str),
    ):
        if name in files:
            _try_seed(name, files[name], seed_of(_read(files, name)))
            return {option: files[name]}
    return {}


def _seed_of_creds(text: str) -> str:
    """Return the seed of a file that `nsc` wrote; empty: it is none (nats-py would read it for ever)."""
    found = CREDS.search(text)
    return found[1] if found else ""


def _try_seed(name: str, path: str, seed: str) -> None:
    try:
        import nkeys
    except ImportError as error:
        text = f"{name} needs the package nkeys: pip install 'minibroker[nats]'"
        raise LoginUnusable(text) from error
    try:
        nkeys.from_seed(bytearray(seed.encode())).wipe()
    except Exception:  # noqa: BLE001 - nkeys promises no closed set; its texts may show what it was given
        raise LoginUnusable(f"{name}={path}: the file holds no {KINDS[name]}") from None


def _read(files: Mapping[str, str], name: str) -> str:
    """Return what the only line of a file says; empty: the address names none."""
    path = files.get(name)
    if path is None:
        return ""
    try:
        text = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LoginUnusable(f"{name}={path}: {_what(error)}") from error
    if not text:
        raise LoginUnusable(f"{name}={path}: the file is empty")
    return text


def _what(error: Exception) -> str:
    """Return what went wrong, without the path, which stands before it."""
    if isinstance(error, UnicodeDecodeError):
        return "it is no text"
    return (getattr(error, "strerror", None) or "it cannot be read").lower().removeprefix("[")
