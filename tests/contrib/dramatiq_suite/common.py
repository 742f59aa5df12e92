"""What Dramatiq's own tests import, and its source package has not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import pika
import pytest

RABBITMQ_CREDENTIALS = pika.PlainCredentials(
    "guest", "guest"
)  # of a broker that nothing connects to
skip_in_ci = skip_on_pypy = skip_on_windows = pytest.mark.filterwarnings("default")


@contextmanager
def worker(*args: Any, **options: Any) -> Iterator[dramatiq.Worker]:
    """A worker that runs in this process while the block does."""
    running = dramatiq.Worker(*args, **options)
    running.start()
    try:
        yield running
    finally:
        running.stop()
