"""Certificates, made once; tests that need them are skipped where there is no openssl."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.certificates import OPENSSL, Authority

sys.path.append(str(Path(__file__).parents[1] / "server"))  # a whole server in a test's hand


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA."""
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def server_files(authority: Authority) -> tuple[Path, Path]:
    """Certificate and key of a server on this machine."""
    return authority.sign("server", "IP:127.0.0.1", "DNS:localhost")
