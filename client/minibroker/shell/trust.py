"""Whom a client trusts, and with what it shows who it is: files, read again when they have changed.

A certificate lives for weeks, a client for months. So each attempt at a connection looks whether the files are
others by now; what it has learned lasts until they are.
"""

from __future__ import annotations

import os
import ssl
from typing import Final

from minibroker.contract.errors import LoginRefused
from minibroker.session.address import Encryption
from minibroker.shell.tunnel import Tunnel

_Signature = tuple[tuple[int, int, int], ...]
# What OpenSSL says when the other end does not speak TLS, or refuses to.
_NO_SERVER: Final = ("WRONG_VERSION_NUMBER", "ALERT_HANDSHAKE_FAILURE", "RECORD_LAYER_FAILURE")


class Trust:
    """Makes the TLS context of a client.

    Raises:
        ValueError: from the constructor: a file cannot be read, or does not hold what it should.
        ConnectionError: the same, from `context`.
    """

    def __init__(self, asked: Encryption) -> None:
        self._asked = asked
        self.name = asked.server_name  # that the certificate must be for; empty: the host
        self._signature: _Signature = ()
        self._context = self._make()

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection; the files are read again if they have changed."""
        if self._look() != self._signature:
            try:
                self._context = self._make()
            except ValueError as error:  # somebody is replacing them just now; it is tried again
                self._signature = ()
                raise ConnectionError(str(error)) from error
        return self._context

    def tunnel(self, host: str) -> Tunnel:
        """Return a tunnel for a new connection to `host`; ConnectionError as `context`."""
        return Tunnel(self.context(), server_name=self.name or host)

    def readable(self, error: OSError, where: str) -> Exception:
        """Return what an attempt at a connection failed with, as its caller should read it.

        A certificate that is not trusted is `LoginRefused`: trying again meets the same. Everything else may pass.
        """
        if isinstance(error, ssl.SSLCertVerificationError):
            refusal = LoginRefused(
                f"the certificate of {where} is not trusted: {error.verify_message or error}; give the CA that "
                "signed it (ca=, MINIBROKER_CA), and the name it is for if that is another than the host "
                "(server_name=, MINIBROKER_SERVER_NAME)"
            )
            refusal.ends_session = False
            return refusal
        if isinstance(error, ssl.SSLError):
            reason = str(error.reason or error)
            if any(each in reason for each in _NO_SERVER):
                return ConnectionResetError(
                    f"{where} did not answer the TLS handshake as a server with TLS does ({reason}); without "
                    f"encryption its address is minibroker://{where}"
                )
            return ConnectionResetError(f"TLS with {where} failed: {reason}")
        return error

    def _make(self) -> ssl.SSLContext:
        asked = self._asked
        self._signature = self._look()
        # The host's name is checked, TLS is 1.2 at the least.
        context = ssl.create_default_context()
        if asked.ca:
            # That one alone: whoever names a CA of his own does not mean those of the system as well.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            try:
                context.load_verify_locations(cafile=asked.ca)
            except OSError as error:
                raise ValueError(
                    f"ca: no certificates can be read from {asked.ca}: {error}"
                ) from error
        if asked.client_cert:
            try:
                context.load_cert_chain(
                    asked.client_cert, asked.client_key or None, password=_no_password
                )
            except (OSError, ValueError) as error:
                named = f"client_cert {asked.client_cert}"
                if asked.client_key:
                    named += f", client_key {asked.client_key}"
                raise ValueError(f"{named}: {error}") from error
        return context

    def _look(self) -> _Signature:
        return tuple(_signature(path) for path in self._asked[:3] if path)


def _signature(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


def _no_password() -> str:
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")
