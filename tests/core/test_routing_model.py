"""Exchanges, routed publishes, policies, crashes and restarts beside a model; `make model` has many more."""

from __future__ import annotations

import pytest
from routing_model import run


@pytest.mark.parametrize("seed", range(6))
def test_what_is_routed_is_what_each_binding_alone_would_take(seed: int) -> None:
    """In all queues or in none, in order, over crashes, restarts and a log that forgets; and no step is idle."""
    met = run(seed, 400)
    assert (
        min(met.get(name, 0) for name in ("route", "both", "bind", "take", "crash", "police")) > 0
    )
