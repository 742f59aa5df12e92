"""The house rules read all files of the project."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def _uncollected() -> Iterator[None]:
    """Keep the collector of garbage away: a million nodes of syntax trees, and all of them stay."""
    gc.disable()
    yield
    gc.enable()
