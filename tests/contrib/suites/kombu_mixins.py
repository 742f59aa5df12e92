"""What kombu's own tests of transports say of this one; `make celery-suite` puts it among them."""

from __future__ import annotations

import os

import kombu
import pytest

import minibroker.contrib.celery  # noqa: F401  # kombu alone loads no entry points before its first message

from .common import (  # type: ignore[import-not-found]  # of kombu's tests
    BaseEventLoop,
    BaseExchangeTypes,
    BaseFailover,
    BaseMessage,
    BasePriority,
    BaseTimeToLive,
    BasicFunctionality,
)

PORT = os.environ["MINIBROKER_SUITE_PORT"]
# What they requeue is asked for in the next line, and some of what they publish is for nobody.
OPTIONS = {"requeue_delay": 0, "unroutable": "drop"}


@pytest.fixture
def connection():
    """Return a connection that is opened by its first use."""
    return kombu.Connection(f"minibroker://127.0.0.1:{PORT}", transport_options=OPTIONS)


@pytest.fixture
def invalid_connection():
    """Return one to a port where nobody listens."""
    return kombu.Connection("minibroker://127.0.0.1:1")


@pytest.fixture
def failover_connection():
    """Return one whose first address is nobody's."""
    urls = f"minibroker://127.0.0.1:1;minibroker://127.0.0.1:{PORT}"
    return kombu.Connection(urls, connect_timeout=5, transport_options=OPTIONS)


class TestBasicFunctionality(BasicFunctionality):
    """Connect, publish, consume, and fail."""


class TestExchangeTypes(BaseExchangeTypes):
    """Direct, topic, fanout."""


class TestMessage(BaseMessage):
    """Ack, reject, requeue."""


class TestPriority(BasePriority):
    """9 goes first."""

    PRIORITY_ORDER = "asc"


class TestTimeToLive(BaseTimeToLive):
    """Expiration."""


class TestFailover(BaseFailover):
    """Two addresses."""


class TestEventLoop(BaseEventLoop):
    """Acks of another thread."""
