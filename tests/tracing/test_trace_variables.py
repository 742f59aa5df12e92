"""Shell scripts take part in a trace by the environment: `publish` takes it, `consume --exec` hands it on."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from minibrokerd.cli.trace_variables import headers_of, variables_of
from support.broker import BrokerServer

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE, BAGGAGE = "vendor=1", "tenant=7"


def run(server: BrokerServer, *words: str, **variables: str) -> str:
    """Return what a command prints in an environment with these variables."""
    done = subprocess.run(
        [sys.executable, "-m", "minibrokerd", *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MINIBROKER_URL": server.url, **variables},
    )
    return done.stdout.strip()


def test_a_chain_of_commands_stays_in_one_trace(broker_server: BrokerServer) -> None:
    variables = {"TRACEPARENT": PARENT, "TRACESTATE": STATE, "BAGGAGE": BAGGAGE}
    run(broker_server, "publish", "first", "1", **variables)
    again = f"{sys.executable} -m minibrokerd publish second 2"
    run(broker_server, "consume", "first", "--count", "1", "--exec", again)
    show = 'echo "$TRACEPARENT $TRACESTATE $BAGGAGE"'
    # What the consumer itself was started in is not what its messages come from.
    stale = {"TRACEPARENT": PARENT.replace("1", "2"), "TRACESTATE": "other=2"}
    said = run(broker_server, "consume", "second", "--count", "1", "--exec", show, **stale)
    assert said == f"{PARENT} {STATE} {BAGGAGE}"


@pytest.mark.parametrize("parent", ["", "00-0-0-01", PARENT + "\n", PARENT.upper(), None, 7, b"00"])
def test_what_is_no_trace_is_not_handed_on(parent: Any) -> None:
    assert variables_of({"traceparent": parent, "baggage": "tenant=7"}) == {}
    if isinstance(parent, str):
        assert headers_of({"TRACEPARENT": parent, "BAGGAGE": "tenant=7"}) == {}


@pytest.mark.parametrize("baggage", ["a\0b", "a\nb", "\u00e9", "x" * 8_193, 7])
def test_what_cannot_stand_in_a_variable_is_emptied(baggage: Any) -> None:
    assert variables_of({"traceparent": PARENT, "baggage": baggage}) == {
        "TRACEPARENT": PARENT,
        "TRACESTATE": "",
        "BAGGAGE": "",
    }
