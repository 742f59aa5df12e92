"""How many examples the model and fuzz tests run, and worlds: few in `make test`, more when the environment asks.

The few are the same each time, so that a change of the tests' colour is one of the code; campaigns draw new ones.

MINIBROKER_MODEL_EXAMPLES=20000 MINIBROKER_MODEL_STEPS=100 python -m pytest tests/core/test_model.py
MINIBROKER_WORLDS=2000 python -m pytest tests/core/test_chained_worlds.py
MINIBROKER_FUZZ_EXAMPLES=200000 python -m pytest tests/server/test_frame_vectors.py -k "damaged or noise"
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def model_settings() -> settings:
    """Return the settings of a state machine: 60 examples of 40 steps unless the environment says more."""
    return settings(
        max_examples=int(os.environ.get("MINIBROKER_MODEL_EXAMPLES", "60")),
        derandomize="MINIBROKER_MODEL_EXAMPLES" not in os.environ,
        stateful_step_count=int(os.environ.get("MINIBROKER_MODEL_STEPS", "40")),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def fuzz_settings() -> settings:
    """Return the settings of a test of single frames: 500 examples unless the environment says more."""
    return settings(
        max_examples=int(os.environ.get("MINIBROKER_FUZZ_EXAMPLES", "500")),
        derandomize="MINIBROKER_FUZZ_EXAMPLES" not in os.environ,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def seeds(few: int) -> range:
    """Return the seeds of worlds in the core: so few unless the environment says more, as `make model` does."""
    return range(int(os.environ.get("MINIBROKER_WORLDS", few)))
