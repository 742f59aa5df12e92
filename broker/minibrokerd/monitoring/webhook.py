"""A webhook as it was asked for, and how a call of it looks: Standard Webhooks, signed with HMAC-SHA256."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from minibrokerd.monitoring.changes import TYPES, Notice

SECRET_PREFIX: Final = "whsec_"
SECRET_BYTES: Final = range(24, 65)


class BadWebhook(ValueError):
    """It cannot be called like this; the text never has the secret."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where it is, the key of its signatures, and the types of what it is told."""

    url: str
    key: bytes = field(repr=False)
    types: tuple[str, ...] = TYPES

    @property
    def shown(self) -> str:
        """Its address without path and query, which may hold a secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, slots=True)
class Call:
    """One notice on its way: its id, which all attempts share, and its body."""

    id: str
    type: str
    body: bytes


def checked_url(url: str) -> str:
    """Return an address that can be called.

    Raises:
        BadWebhook: it is none of HTTP, or has a name and password, a fragment, or what HTTP cannot send.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise BadWebhook(f"the address of the webhook is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadWebhook("a webhook has an address like https://host/path")
    if "@" in parts.netloc:
        raise BadWebhook("the address of a webhook has no name and password: calls are signed")
    if parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise BadWebhook("the address of a webhook is plain ASCII, without spaces and without #")
    return url


def key_of(secret: str) -> bytes:
    """Return the key that a secret holds, `whsec_` and base64 of 24 to 64 bytes.

    Raises:
        BadWebhook: it does not.
    """
    says = f"a secret of a webhook is {SECRET_PREFIX} and base64 of 24 to 64 bytes"
    if not secret.startswith(SECRET_PREFIX):
        raise BadWebhook(says)
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise BadWebhook(says) from None  # the cause might show some of it
    if len(key) not in SECRET_BYTES:
        raise BadWebhook(says)
    return key


def call_of(notice: Notice, id: str, unix_ms: int) -> Call:
    """Return the call that tells a notice of this moment."""
    at = datetime.fromtimestamp(unix_ms / 1_000, UTC).isoformat(timespec="milliseconds")
    body = {
        "type": notice.type,
        "timestamp": at.replace("+00:00", "Z"),
        "data": dict(notice.data),
    }
    return Call(id, notice.type, json.dumps(body).encode())


def headers_of(call: Call, key: bytes, unix_s: int) -> dict[str, str]:
    """Return the headers of an attempt at this time; receivers refuse a time that is minutes off."""
    signed = f"{call.id}.{unix_s}.".encode() + call.body
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "content-type": "application/json",
        "user-agent": "minibroker",
        "webhook-id": call.id,
        "webhook-timestamp": str(unix_s),
        "webhook-signature": f"v1,{signature}",
    }
