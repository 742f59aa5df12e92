"""Names of parametrized tests."""

from __future__ import annotations

import re


def without_address(value: object) -> str:
    """Return the repr of a value as it is in every process: those that share a run must find the same tests."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
