"""Servers of NATS that let in whom they know: by TLS, a password, an nkey, a token, or a JWT of an account.

Each user may do what `nats_login.py` says that a broker needs, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import nkeys

from minibrokerd.replicated.nats_login import publishes, subscribes
from minibrokerd.replicated.stream_address import parse
from support.certificates import Authority
from support.nats_nodes import Node, free_ports

STREAM: Final = "orders"
PASSWORD: Final = "correct-horse"
TOKEN: Final = "battery-staple"


def permissions(without: str = "", stream: str = STREAM) -> dict[str, Any]:
    """Return what a user is allowed, in the words of the server; `without` is left out."""
    address = parse(f"nats://a/{stream}")
    may = {"publish": publishes(address), "subscribe": subscribes(address)}
    return {way: [each for each in subjects if each != without] for way, subjects in may.items()}


def new_key(prefix: int) -> nkeys.KeyPair:
    """Return a new pair of keys."""
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


def public(key: nkeys.KeyPair) -> str:
    """Return the public key as text."""
    return bytes(key.public_key).decode()


class Guarded:
    """One server; `users` is the part of its configuration that says who may what."""

    def __init__(self, folder: Path, users: str, tls: str = "") -> None:
        (port,) = free_ports(1)
        self.port = port
        jetstream = f'jetstream {{ store_dir: "{folder}/store", sync_interval: always }}\n'
        config = f"server_name: guarded\nlisten: 127.0.0.1:{port}\n{jetstream}{tls}\n{users}\n"
        self.node = Node(folder, "guarded", port, config)
        self.node.start()

    def address(
        self, login: str = "", scheme: str = "nats", host: str = "127.0.0.1", **files: Path
    ) -> str:
        """Return what --log says."""
        options = "".join(f"&{name}={path}" for name, path in files.items())
        at = f"{login}@" if login else ""
        return f"{scheme}://{at}{host}:{self.port}/{STREAM}?replicas=1{options}"


def users_of(*users: Mapping[str, Any]) -> str:
    """Return an account with JetStream and these users, as the configuration says it."""
    return f"accounts: {{ BROKERS: {{ jetstream: enabled, users: {json.dumps(users)} }} }}"


def tls_of(authority: Authority, *, verify: bool) -> str:
    """Return the block of TLS of a server on this machine; `verify`: it asks for a certificate."""
    cert, key = authority.sign("server", "IP:127.0.0.1")
    return (
        f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{authority.cert}", '
        f"verify: {str(verify).lower()} }}"
    )


class Accounts:
    """An operator and an account of it, as `nsc` would make them."""

    def __init__(self) -> None:
        self._operator = new_key(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = new_key(nkeys.PREFIX_BYTE_ACCOUNT)
        self._system = new_key(nkeys.PREFIX_BYTE_ACCOUNT)

    @property
    def config(self) -> str:
        """What a server trusts."""
        itself = {"type": "operator", "version": 2}
        operator = _jwt(self._operator, public(self._operator), itself)
        keys = ((public(self._account), 3 * (-1,)), (public(self._system), 3 * (0,)))
        accounts = ", ".join(f"{name}: {self._account_of(name, most)}" for name, most in keys)
        return (
            f"operator: {operator}\nsystem_account: {public(self._system)}\n"
            f"resolver: MEMORY\nresolver_preload: {{ {accounts} }}"
        )

    def _account_of(self, name: str, most: tuple[int, ...]) -> str:
        names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
        stored = zip(("disk_storage", "streams", "consumer"), most, strict=True)
        limits = {**dict.fromkeys(names, -1), **dict(stored), "wildcards": True}
        return _jwt(self._operator, name, {"limits": limits, "type": "account", "version": 2})

    def creds(self) -> str:
        """Return the file of a new user, who may what a broker needs."""
        user = new_key(nkeys.PREFIX_BYTE_USER)
        may = permissions()
        says = {
            "pub": {"allow": may["publish"]},
            "sub": {"allow": may["subscribe"]},
            "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2,
        }  # fmt: skip
        token, seed = _jwt(self._account, public(user), says), bytes(user.seed).decode()
        return (
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )


def _jwt(issuer: nkeys.KeyPair, subject: str, says: Mapping[str, Any]) -> str:
    claims = {"iat": 1, "iss": public(issuer), "name": "test", "sub": subject, "nats": says}
    digest = hashlib.sha256(json.dumps(claims).encode()).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    head = _part({"typ": "JWT", "alg": "ed25519-nkey"})
    body = f"{head}.{_part(claims)}"
    return f"{body}.{_text(issuer.sign(body.encode()))}"


def _part(value: object) -> str:
    return _text(json.dumps(value).encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
