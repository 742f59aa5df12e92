"""What the client of NATS brings along into a broker that somebody waits for."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

CODE = """
import sys
from minibrokerd.replicated.nats_client import new_client
from minibrokerd.replicated.stream_address import parse
new_client(parse("nats://a/orders"))
print("nats.aio.client" in sys.modules, "aiohttp" in sys.modules)
import aiohttp
"""


@pytest.mark.skipif(find_spec("aiohttp") is None, reason="what is missed must be there")
def test_no_package_for_websockets_is_imported_and_who_wants_it_gets_it() -> None:
    """It was more than the rest of a broker's start."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
