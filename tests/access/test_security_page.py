"""docs/security.md: its certificates are made as it says, and a broker and its clients take them."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

import minibroker.sync
from support.broker import StartBroker
from support.certificates import OPENSSL
from support.source import ROOT


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
def test_the_certificates_of_the_page(start_broker: StartBroker, tmp_path: Path) -> None:
    """Server and client, each verified by the other."""
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    found = re.search(r"```sh certificates\n(.*?)```", text, re.DOTALL)
    assert found
    done = subprocess.run(
        ["sh", "-e", "-c", found[1]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    file = {path.name: str(path) for path in tmp_path.iterdir()}
    server = start_broker(
        "--tls-cert", file["server.pem"], "--tls-key", file["server.key"],
        "--tls-client-ca", file["ca.pem"], "--segment-bytes", "1MiB",
    )  # fmt: skip
    own = {"client_cert": file["worker.pem"], "client_key": file["worker.key"]}
    for host in ("localhost", "127.0.0.1"):
        url = f"minibrokers://{host}:{server.port}"
        with minibroker.sync.connect(url, ca=file["ca.pem"], **own) as broker:  # type: ignore[arg-type]
            broker.ping()
    # As Python 3.13 and later ask by themselves, also for the commands that speak HTTP, NATS and the bridges.
    strict = ssl.create_default_context(cafile=file["ca.pem"])
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    strict.load_cert_chain(file["worker.pem"], file["worker.key"])
    with (
        socket.create_connection((server.host, server.port), timeout=20) as plain,
        strict.wrap_socket(plain, server_hostname="localhost") as sealed,
    ):
        assert sealed.getpeercert()
    assert " key_is_open " not in server.output
