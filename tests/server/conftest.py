"""What the core says is asked of the world of tests/core."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minibrokerd.process import logs

sys.path.append(str(Path(__file__).parents[1] / "core"))


@pytest.fixture(autouse=True)
def said_in_time() -> Iterator[None]:
    """What a server in the test's own process logs is written before pytest looks at what was captured."""
    yield
    logs.flush(1.0)
