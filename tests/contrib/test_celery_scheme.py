"""kombu and Celery know the scheme, whichever of the three is imported first."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("celery", reason="the extra celery is not installed")

KNOWN = """
from celery import Celery
from kombu import Connection
import minibroker.contrib.celery
url = "minibroker://localhost"
assert Connection(url).transport.driver_type == "minibroker"
assert type(Celery(broker=url, backend=url).backend).__name__ == "MinibrokerBackend"
"""


@pytest.mark.parametrize(
    "first", ["minibroker.contrib.celery", "celery", "kombu", "kombu.serialization"]
)
def test_the_scheme_is_known_whatever_is_imported_first(first: str) -> None:
    """Also by an entry point of kombu, which may be looked at in the midst of an import of ours."""
    command = [sys.executable, "-c", f"import {first}\n{KNOWN}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
