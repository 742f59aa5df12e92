"""Brokers for tests that start them often."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.broker import BrokerServer


@pytest.fixture
def broker_server(start_broker: Callable[..., BrokerServer]) -> BrokerServer:
    """One running broker on a fresh directory, with segments that are quickly made ready."""
    return start_broker("--segment-bytes", str(1024 * 1024))
